//! The command line. Verbs and nouns are eksctl's.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};

use crate::{cluster, cost, create, delete, doctor, get, image, server};

/// Serverless Kubernetes on your own machines: every pod in its own microVM.
#[derive(Debug, Parser)]
#[command(name = "isopod", version, propagate_version = true)]
pub(crate) struct Args {
    /// Where clusters keep their state.
    #[arg(long, global = true, env = "ISOPOD_STATE_DIR", default_value = "/var/lib/isopod")]
    state_dir: PathBuf,
    /// Where clusters keep sockets and locks.
    #[arg(long, global = true, env = "ISOPOD_RUN_DIR", default_value = "/run/isopod")]
    run_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a cluster or a Fargate profile.
    #[command(subcommand)]
    Create(Create),
    /// Show clusters or Fargate profiles.
    #[command(subcommand)]
    Get(Get),
    /// Delete a cluster or a Fargate profile.
    #[command(subcommand)]
    Delete(Delete),
    /// Start what is not running.
    #[command(subcommand)]
    Start(Start),
    /// Say what this host offers and what to install.
    Doctor,
    /// Show what microVMs have cost.
    Cost(cost::CostArgs),
    /// Import, list and remove images.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Run a cluster's server in the foreground.
    Server {
        /// Name of the cluster.
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Create {
    /// Create a cluster from a file or from flags.
    Cluster(create::ClusterArgs),
    /// Create a Fargate profile.
    Fargateprofile(create::ProfileArgs),
}

#[derive(Debug, Subcommand)]
enum Get {
    /// Show clusters.
    #[command(visible_alias = "clusters")]
    Cluster {
        /// Only this one, in more detail.
        name: Option<String>,
    },
    /// Show the Fargate profiles of a cluster.
    #[command(visible_alias = "fargateprofiles")]
    Fargateprofile(ClusterName),
}

#[derive(Debug, Subcommand)]
enum Delete {
    /// Delete a cluster with everything it has on this machine.
    Cluster {
        /// Name of the cluster.
        #[arg(long, required_unless_present = "file")]
        name: Option<String>,
        /// The file it was created from.
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// Also remove kernels and templates, when no other cluster is left.
        #[arg(long)]
        purge: bool,
    },
    /// Delete a Fargate profile; its pods are deleted with it.
    Fargateprofile {
        #[command(flatten)]
        cluster: ClusterName,
        /// Name of the profile.
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Start {
    /// Start a cluster's server again; its pods went on running.
    Cluster {
        /// Name of the cluster.
        #[arg(long)]
        name: String,
    },
}

/// Which cluster.
#[derive(Clone, Debug, Arguments)]
pub(crate) struct ClusterName {
    /// Name of the cluster; may be left out when there is only one.
    #[arg(long)]
    pub(crate) cluster: Option<String>,
}

/// Does what the command line says.
pub(crate) async fn dispatch(args: Args) -> anyhow::Result<()> {
    let places = cluster::Places { state_dir: args.state_dir, run_dir: args.run_dir };
    match args.command {
        Command::Create(Create::Cluster(args)) => create::cluster(&places, args).await,
        Command::Create(Create::Fargateprofile(args)) => create::profile(&places, args).await,
        Command::Get(Get::Cluster { name }) => get::clusters(&places, name.as_deref()).await,
        Command::Get(Get::Fargateprofile(of)) => get::profiles(&places, &of).await,
        Command::Delete(Delete::Cluster { name, file, purge }) => delete::cluster(&places, name, file, purge).await,
        Command::Delete(Delete::Fargateprofile { cluster, name }) => delete::profile(&places, &cluster, &name).await,
        Command::Start(Start::Cluster { name }) => create::start(&places, &name).await,
        Command::Doctor => doctor::run(&places).await,
        Command::Cost(args) => cost::run(&places, args).await,
        Command::Image(command) => image::run(&places, command),
        Command::Server { name } => server::run(&places, &name).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
