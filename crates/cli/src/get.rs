//! `isopod get cluster|fargateprofile`.

use isopod_types::own::FargateProfile;
use serde::Deserialize;

use crate::args::ClusterName;
use crate::cluster::{self, Cluster, Places};
use crate::progress::table;

fn status(cluster: &Cluster) -> &'static str {
    if cluster.server().is_some() { "ACTIVE" } else { "STOPPED" }
}

/// Lists clusters, or shows one.
pub(crate) async fn clusters(places: &Places, name: Option<&str>) -> anyhow::Result<()> {
    if let Some(name) = name {
        return one(&places.find(&ClusterName { cluster: Some(name.to_owned()) })?);
    }
    let clusters = places.clusters();
    if clusters.is_empty() {
        eprintln!("No clusters found");
        return Ok(());
    }
    let row = |cluster: &Cluster| {
        let file = cluster.read()?;
        anyhow::Ok(vec![
            cluster.name.clone(),
            file.config.metadata.region,
            status(cluster).into(),
            file.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ])
    };
    let rows = clusters.iter().map(row).collect::<anyhow::Result<Vec<_>>>()?;
    table(&["NAME", "REGION", "STATUS", "CREATED"], &rows);
    Ok(())
}

fn one(cluster: &Cluster) -> anyhow::Result<()> {
    let file = cluster.read()?;
    let version = file.config.metadata.version.unwrap_or_else(|| "1.36".into());
    let row = vec![
        cluster.name.clone(),
        version,
        status(cluster).into(),
        file.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        file.vpc_cidr.to_string(),
        file.service_cidr.to_string(),
        format!("https://{}", file.listen),
    ];
    table(&["NAME", "VERSION", "STATUS", "CREATED", "VPC", "SERVICES", "ENDPOINT"], &[row]);
    Ok(())
}

/// Lists the Fargate profiles of a cluster, one row per selector.
pub(crate) async fn profiles(places: &Places, of: &ClusterName) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<FargateProfile>,
    }
    let client = cluster::client(&places.find(of)?).await?;
    let request = http::Request::get("/apis/isopod.dev/v1alpha1/fargateprofiles").body(Vec::new())?;
    let list: List = client.request(request).await?;
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let mut rows = Vec::new();
    for profile in &list.items {
        for selector in &profile.spec.selectors {
            let labels: Vec<String> = selector.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            rows.push(vec![
                profile.metadata.name.clone(),
                selector.namespace.clone(),
                or_none(labels.join(",")),
                or_none(profile.spec.pod_execution_role_arn.clone()),
                or_none(profile.spec.subnets.join(",")),
                or_none(
                    profile.spec.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
                ),
                "ACTIVE".into(),
            ]);
        }
    }
    let header =
        ["NAME", "SELECTOR_NAMESPACE", "SELECTOR_LABELS", "POD_EXECUTION_ROLE_ARN", "SUBNETS", "TAGS", "STATUS"];
    table(&header, &rows);
    Ok(())
}
