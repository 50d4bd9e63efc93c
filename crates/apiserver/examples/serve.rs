//! An API server on its own, without node agents: `cargo run -p isopod-apiserver --example serve -- DIRECTORY [PORT]`.
//! Writes `DIRECTORY/kubeconfig` and serves on loopback until interrupted.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use isopod_apiserver::{ApiServer, Config};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: serve DIRECTORY [PORT]")?);
    let port = arguments.next().map_or(Ok(6443), |port| port.parse())?;
    let begun = Instant::now();
    let advertise = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(advertise).await?;
    let advertise = listener.local_addr()?;
    let config = Config { state_directory: Some(directory.clone()), advertise, ..Config::default() };
    let server = ApiServer::open(config).await?;
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(&kubeconfig, server.admin_kubeconfig(&format!("https://{advertise}"), "isopod"))?;
    println!("open after {} ms; KUBECONFIG={}", begun.elapsed().as_millis(), kubeconfig.display());
    let interrupted = async {
        // Without a signal handler there is no way to stop but a signal.
        let _ = tokio::signal::ctrl_c().await;
    };
    server.serve(vec![listener], interrupted).await?;
    Ok(())
}
