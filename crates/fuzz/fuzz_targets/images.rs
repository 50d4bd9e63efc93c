//! Any bytes as what registries and archives hold: layers, packed or not, archives of images, documents, and names.
#![no_main]

use isopod_images::{Credentials, fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| match input.0 % 4 {
    0 => fuzzing::layers([input.1, &[]]),
    1 => fuzzing::layers(input.1.split_at(input.1.len() / 1024 * 512).into()),
    2 => fuzzing::archive(input.1),
    _ => {
        let text = String::from_utf8_lossy(input.1);
        drop(Credentials::from_docker_config(input.1, "registry.example.com/a:b"));
        drop(Credentials::from_docker_config(br#"{"auths": {"docker.io": {"auth": "YTpi"}}}"#, &text));
        fuzzing::documents(input.1);
    }
});
