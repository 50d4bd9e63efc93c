//! Kernel parameters: those of a machine that is a pod's alone. Those of a shared one are in `node`.

use isopod_guest_api::{ContainerConfig, ErrorKind, PodConfig, Sysctl};

use crate::{
    guest::{guest, pod, run},
    support::{self, Lab, container},
};

pub fn sysctl(name: &str, value: &str) -> Sysctl {
    Sysctl { name: name.into(), value: value.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_sets_parameters_of_its_kernel() {
    let Some(lab) = Lab::open(true).await else { return };
    let sysctls = vec![sysctl("kernel.shm_rmid_forced", "1"), sysctl("vm.max_map_count", "262144")];
    let (machine, client) = pod(&lab, "sysctls", PodConfig { sysctls, ..support::pod("pod-1") }).await;
    let look: ContainerConfig = container("main", "cd /proc/sys; cat kernel/shm_rmid_forced vm/max_map_count");
    assert_eq!(run(&client, look).await.1, "1\n262144\n");
    machine.destroy().await.unwrap();

    let (machine, client) = guest(&lab, "nonsense").await;
    let config = PodConfig { sysctls: vec![sysctl("kernel.nonsense", "1")], ..support::pod("pod-2") };
    let error = client.configure_pod(config).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::InvalidArgument));
    assert!(error.to_string().contains("sysctl kernel.nonsense = 1"), "{error}");
    machine.destroy().await.unwrap();
}
