//! Whose machine this is: nobody's, one pod's, or a node's with many pods.

use std::{collections::BTreeMap, fs, path::Path};

use isopod_guest_api::{ErrorKind, NodeConfig, PodConfig};

use crate::{
    disk::Images,
    fault::Fault,
    identity::Identity,
    name_service, network, path,
    pod::{Pod, unmount_below},
};

/// Node, pods, and the images that they share.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    /// Without time and entropy; none: not a node.
    node: Option<NodeConfig>,
    pods: BTreeMap<String, Pod>,
    pub(crate) images: Images,
}

impl Tenants {
    /// Whether the machine is nobody's.
    pub(crate) fn is_vacant(&self) -> bool {
        self.node.is_none() && self.pods.is_empty()
    }

    /// UIDs of all pods.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    /// Makes the machine a node. The same configuration again is accepted.
    pub(crate) fn configure_node(&mut self, mut config: NodeConfig) -> Result<(), Fault> {
        let wanted = NodeConfig { realtime_unix_nanos: 0, entropy: bytes::Bytes::new(), ..config.clone() };
        if self.node.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if !self.is_vacant() {
            return Err(Fault::new(ErrorKind::AlreadyExists, "the guest is a node or a pod already"));
        }
        Identity::from(&config).assume()?;
        network::forward().map_err(Fault::io(ErrorKind::NetworkFailed, "forwarding"))?;
        let files = Path::new(path::NODE_FILES).join("etc");
        name_service::of_node(&files, &config).map_err(Fault::internal("the node's files"))?;
        (config.realtime_unix_nanos, config.entropy) = (0, bytes::Bytes::new());
        self.node = Some(config);
        Ok(())
    }

    /// Takes a pod in. The same configuration again is accepted, with what its files hold by now.
    pub(crate) fn configure_pod(&mut self, config: PodConfig) -> Result<(), Fault> {
        if let Some(pod) = self.pods.get_mut(&config.uid) {
            if pod.is(&config) {
                return pod.renew(config);
            }
            let text = format!("the guest has pod {} with another configuration", pod.uid());
            return Err(Fault::new(ErrorKind::AlreadyExists, text));
        }
        if !config.shared && !self.is_vacant() {
            let uid = self.pods.keys().next().map_or("", String::as_str);
            return Err(Fault::new(
                ErrorKind::AlreadyExists,
                format!("the guest is not free: it is a node's or pod {uid}'s"),
            ));
        }
        if config.shared && self.node.is_none() {
            return Err(Fault::new(ErrorKind::NotConfigured, "the guest is not a node yet"));
        }
        let (uid, shared) = (config.uid.clone(), config.shared);
        match Pod::configure(config, &mut self.images) {
            Ok(pod) => drop(self.pods.insert(uid, pod)),
            Err(fault) => {
                if shared {
                    // The node goes on, and the pod may be tried again.
                    let _ = crate::pod::remove(&uid);
                }
                return Err(fault);
            }
        }
        Ok(())
    }

    /// A pod by UID; the only one, when the UID is empty.
    pub(crate) fn pod(&mut self, uid: &str) -> Result<(&mut Pod, &mut Images), Fault> {
        let Self { node, pods, images } = self;
        let found = match (uid, node) {
            ("", None) => pods.values_mut().next(),
            _ => pods.get_mut(uid),
        };
        let missing = || Fault::new(ErrorKind::NotConfigured, format!("the guest has no pod {uid:?}"));
        Ok((found.ok_or_else(missing)?, images))
    }

    /// Takes a pod out.
    pub(crate) fn take(&mut self, uid: &str) -> Option<Pod> {
        self.pods.remove(uid)
    }

    /// Makes a machine that is not a node nobody's again.
    pub(crate) fn vacate(&mut self) -> Result<(), Fault> {
        if self.node.is_some() {
            return Err(Fault::invalid("a node is not anybody else's again"));
        }
        for (_, pod) in std::mem::take(&mut self.pods) {
            pod.forget()?;
        }
        unmount_below(Path::new(path::RUN)).map_err(Fault::io(ErrorKind::MountFailed, "unmounting"))?;
        self.images = Images::default();
        fs::remove_dir_all(path::IMAGES).and_then(|()| fs::create_dir(path::IMAGES)).map_err(Fault::internal("images"))
    }
}
