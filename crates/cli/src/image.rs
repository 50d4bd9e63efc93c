//! `isopod image import|list|remove`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Subcommand;
use isopod_images::{ImageStore, Limits, Options, Origin};

use crate::args::ClusterName;
use crate::cluster::{Places, require_root};
use crate::progress::table;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import an OCI or docker archive; pods then use it as if its registry had it.
    Import {
        /// The archive.
        file: PathBuf,
        /// Name for an archive that has none, or another one.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        cluster: ClusterName,
    },
    /// List the images on this host.
    List(ClusterName),
    /// Remove an image from this host.
    Remove {
        /// Name of the image.
        image: String,
        #[command(flatten)]
        cluster: ClusterName,
    },
}

fn open(places: &Places, of: &ClusterName) -> anyhow::Result<ImageStore> {
    require_root()?;
    let directory = places.find(of)?.directory.join("images");
    Ok(ImageStore::open(Options { directory, insecure_registries: Vec::new(), limits: Limits::default() })?)
}

/// Does it.
pub(crate) fn run(places: &Places, command: ImageCommand) -> anyhow::Result<()> {
    match command {
        ImageCommand::Import { file, name, cluster } => {
            for image in open(places, &cluster)?.import(&file, name.as_deref())? {
                println!("imported {} ({} MiB, {})", image.reference, image.content_bytes >> 20, image.digest);
            }
        }
        ImageCommand::List(cluster) => {
            let rows = open(places, &cluster)?.list().into_iter().map(|image| {
                let origin = if image.origin == Origin::Imported { "imported" } else { "pulled" };
                vec![
                    image.reference,
                    image.id[..19.min(image.id.len())].to_owned(),
                    format!("{} MiB", image.content_bytes >> 20),
                    origin.into(),
                ]
            });
            table(&["IMAGE", "ID", "SIZE", "ORIGIN"], &rows.collect::<Vec<_>>());
        }
        // Disks that running pods have open stay readable for them after their names are gone.
        ImageCommand::Remove { image, cluster } => {
            open(places, &cluster)?.remove(&image, &BTreeSet::new())?;
            println!("removed {image}");
        }
    }
    Ok(())
}
