//! Labels of GPU series, in dcgm-exporter's order.

use super::options::HostnameLabel;
use super::reading::{DriverInfo, GpuDescription, InstanceDescription};
use crate::group::Label;

/// What all GPU series of a node have in common.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    /// The node's name.
    pub(super) node: String,
    /// Under which label.
    pub(super) hostname_label: HostnameLabel,
    /// Pods that have a GPU to themselves, by UUID, where series are to show it.
    pub(super) owners: Vec<(String, Owner)>,
}

/// The one pod that has a GPU or a MIG instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

impl Labels {
    /// Labels of a whole GPU.
    pub(super) fn of_gpu(&self, gpu: &GpuDescription, driver: &DriverInfo) -> Vec<Label> {
        let mut labels = self.of_device(gpu, driver);
        self.own(&mut labels, &gpu.uuid);
        labels
    }

    /// The same without its pod, for series that name one themselves.
    pub(super) fn of_device(&self, gpu: &GpuDescription, driver: &DriverInfo) -> Vec<Label> {
        let mut labels = who(gpu);
        self.finish(&mut labels, driver);
        labels
    }

    /// Labels of a MIG instance.
    pub(super) fn of_instance(
        &self,
        gpu: &GpuDescription,
        instance: &InstanceDescription,
        driver: &DriverInfo,
    ) -> Vec<Label> {
        let mut labels = who(gpu);
        labels.push(("GPU_I_PROFILE".into(), instance.profile.clone()));
        labels.push(("GPU_I_ID".into(), instance.gpu_instance.to_string()));
        if instance.compute_instance != 0 {
            labels.push(("compute_instance".into(), instance.compute_instance.to_string()));
        }
        self.finish(&mut labels, driver);
        self.own(&mut labels, &instance.uuid);
        labels
    }

    /// Labels of a GPU of which only the place is known: it fell off before the agent started.
    pub(super) fn of_place(&self, pci_bus_id: String) -> Vec<Label> {
        let mut labels = vec![("pci_bus_id".into(), pci_bus_id)];
        self.hostname(&mut labels);
        labels
    }

    /// The node's name.
    pub(super) fn hostname(&self, labels: &mut Vec<Label>) {
        if matches!(self.hostname_label, HostnameLabel::Old | HostnameLabel::Both) {
            labels.push(("Hostname".into(), self.node.clone()));
        }
        if matches!(self.hostname_label, HostnameLabel::New | HostnameLabel::Both) {
            labels.push(("hostname".into(), self.node.clone()));
        }
    }

    /// A group's key: whatever changes a label changes the key, for labels of a group are for good.
    pub(super) fn key(&self, gpu: &GpuDescription, driver: &DriverInfo) -> String {
        let mut key = format!("gpu/{}/{}/{}/{}", gpu.uuid, gpu.index, gpu.pci_bus_id, driver.driver);
        let instances = gpu.instances.iter().map(|instance| instance.uuid.as_str());
        for owner in std::iter::once(gpu.uuid.as_str()).chain(instances).filter_map(|uuid| self.owner(uuid)) {
            key.push_str(&format!("/{}/{}/{}", owner.namespace, owner.pod, owner.container));
        }
        key
    }

    fn finish(&self, labels: &mut Vec<Label>, driver: &DriverInfo) {
        self.hostname(labels);
        if !driver.driver.is_empty() {
            labels.push(("DCGM_FI_DRIVER_VERSION".into(), driver.driver.clone()));
        }
    }

    fn own(&self, labels: &mut Vec<Label>, uuid: &str) {
        if let Some(owner) = self.owner(uuid) {
            labels.push(("container".into(), owner.container.clone()));
            labels.push(("namespace".into(), owner.namespace.clone()));
            labels.push(("pod".into(), owner.pod.clone()));
        }
    }

    fn owner(&self, uuid: &str) -> Option<&Owner> {
        self.owners.iter().find(|(owned, _)| owned == uuid).map(|(_, owner)| owner)
    }
}

fn who(gpu: &GpuDescription) -> Vec<Label> {
    vec![
        ("gpu".into(), gpu.index.to_string()),
        ("UUID".into(), gpu.uuid.clone()),
        ("pci_bus_id".into(), gpu.pci_bus_id.clone()),
        ("device".into(), format!("nvidia{}", gpu.minor)),
        ("modelName".into(), gpu.model.clone()),
    ]
}
