//! The host agent as the API server sees it: it tells what pods and nodes use. It carries no streams; those are tested against real
//! machines.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use isopod_apiserver::{
    Duplex, ExecRequest, ExecSession, Kubelets, LogRequest, NodeUsage, PodUsage, PortForwardRequest, Status, Usage,
};
use isopod_host_agent::HostAgent;
use tokio::sync::mpsc;

/// The agent that was started last.
#[derive(Default)]
pub(crate) struct CurrentAgent(Mutex<Option<HostAgent>>);

impl CurrentAgent {
    pub(crate) fn is(&self, agent: HostAgent) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(agent);
    }
}

fn no_streams<T>() -> Result<T, Status> {
    Err(Status::unavailable("simulated nodes have no streams"))
}

#[async_trait]
impl Kubelets for CurrentAgent {
    async fn logs(&self, _: &str, _: LogRequest) -> Result<mpsc::Receiver<Result<bytes::Bytes, String>>, Status> {
        no_streams()
    }

    async fn exec(&self, _: &str, _: ExecRequest) -> Result<ExecSession, Status> {
        no_streams()
    }

    async fn port_forward(&self, _: &str, _: PortForwardRequest) -> Result<Box<dyn Duplex>, Status> {
        no_streams()
    }

    async fn usage(&self, node: &str) -> Result<NodeUsage, Status> {
        let agent = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let agent = agent.ok_or_else(|| Status::unavailable("no agent was started"))?;
        let found = agent.usage(node).await.map_err(|error| Status::bad_request(error.to_string()))?;
        let at_unix_nanos = found.machine.unix_nanos;
        let mut pods: BTreeMap<(String, String), PodUsage> = BTreeMap::new();
        for one in found.containers {
            let pod = pods.entry((one.namespace.clone(), one.pod.clone())).or_default();
            (pod.namespace, pod.pod) = (one.namespace, one.pod);
            let (cpu_nanos, memory_bytes) = (one.stats.cpu_usage_nanos, one.stats.memory_working_set_bytes);
            pod.containers.insert(one.container, Usage { at_unix_nanos, cpu_nanos, memory_bytes });
        }
        let memory_bytes = found.machine.memory_total_bytes.saturating_sub(found.machine.memory_available_bytes);
        let whole = Usage { at_unix_nanos, cpu_nanos: found.machine.cpu_usage_nanos, memory_bytes };
        Ok(NodeUsage { whole, pods: pods.into_values().collect() })
    }
}
