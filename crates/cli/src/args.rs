//! The command line. Verbs and nouns are eksctl's.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};

use crate::{cluster, cost, create, delete, doctor, get, image, nodegroup, server};

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
    /// Create a cluster, a Fargate profile or a node group.
    #[command(subcommand)]
    Create(Create),
    /// Show clusters, Fargate profiles or node groups.
    #[command(subcommand)]
    Get(Get),
    /// Delete a cluster, a Fargate profile or a node group.
    #[command(subcommand)]
    Delete(Delete),
    /// Change the size of a node group.
    #[command(subcommand)]
    Scale(Scale),
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
    /// Create a group of worker nodes.
    Nodegroup(nodegroup::CreateArgs),
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
    /// Show the node groups of a cluster.
    #[command(visible_alias = "nodegroups")]
    Nodegroup(ClusterName),
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
    /// Delete a group of worker nodes, once their pods are elsewhere.
    Nodegroup(nodegroup::DeleteArgs),
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
enum Scale {
    /// Change how many nodes a group has; nodes that go are drained first.
    Nodegroup(nodegroup::ScaleArgs),
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
        Command::Create(Create::Nodegroup(args)) => nodegroup::create(&places, args).await,
        Command::Get(Get::Nodegroup(of)) => nodegroup::get(&places, &of).await,
        Command::Scale(Scale::Nodegroup(args)) => nodegroup::scale(&places, args).await,
        Command::Delete(Delete::Nodegroup(args)) => nodegroup::delete(&places, args).await,
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
