//! Links, addresses and routes by netlink.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::error::NetError;

fn failed(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let what = what.into();
    move |error| NetError::Netlink { what, reason: error.to_string() }
}

/// Whether the kernel says that something is there already.
fn exists(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -17)
}

/// Index of a link.
pub(crate) async fn index(handle: &Handle, name: &str) -> Result<u32, NetError> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let found = links.try_next().await.map_err(failed(format!("link {name}")))?;
    found
        .map(|link| link.header.index)
        .ok_or_else(|| NetError::Netlink { what: format!("link {name}"), reason: "not found".into() })
}

/// Names of all links that begin with a prefix.
pub(crate) async fn names(handle: &Handle, prefix: &str) -> Result<Vec<String>, NetError> {
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(failed("links"))?;
    let name = |attribute: LinkAttribute| if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None };
    let all = links.into_iter().flat_map(|link| link.attributes).filter_map(name);
    Ok(all.filter(|name| name.starts_with(prefix)).collect())
}

/// Sets a link up.
pub(crate) async fn up(handle: &Handle, index: u32) -> Result<(), NetError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.map_err(failed("set link up"))
}

/// Deletes a link by name; one that is gone is fine.
pub(crate) async fn delete(handle: &Handle, name: &str) -> Result<(), NetError> {
    let Ok(index) = index(handle, name).await else { return Ok(()) };
    handle.link().del(index).execute().await.map_err(failed(format!("delete link {name}")))
}

/// Gives a link an address of its own.
pub(crate) async fn add_address(handle: &Handle, index: u32, address: Ipv4Addr) -> Result<(), NetError> {
    match handle.address().add(index, address.into(), 32).execute().await {
        Err(error) if !exists(&error) => Err(failed(format!("address {address}"))(error)),
        _ => Ok(()),
    }
}

/// Routes one address to a link, replacing an earlier route.
pub(crate) async fn route(handle: &Handle, index: u32, address: Ipv4Addr) -> Result<(), NetError> {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .output_interface(index)
        .scope(rtnetlink::packet_route::route::RouteScope::Link)
        .build();
    handle.route().add(message).replace().execute().await.map_err(failed(format!("route to {address}")))
}

/// Takes the route of one address away; one that is gone is fine.
pub(crate) async fn unroute(handle: &Handle, index: u32, address: Ipv4Addr) -> Result<(), NetError> {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .output_interface(index)
        .scope(rtnetlink::packet_route::route::RouteScope::Link)
        .build();
    match handle.route().del(message).execute().await {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -NO_SUCH_PROCESS => Ok(()),
        Err(error) => Err(failed(format!("route to {address}"))(error)),
        Ok(()) => Ok(()),
    }
}

/// What the kernel answers for a route that is not there (`ESRCH`).
const NO_SUCH_PROCESS: i32 = 3;

/// All IPv4 networks that this host's interfaces are in, with the names of the interfaces.
pub(crate) async fn networks(handle: &Handle) -> Result<Vec<ipnet::Ipv4Net>, NetError> {
    let all: Vec<_> = handle
        .route()
        .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
        .execute()
        .try_collect()
        .await
        .map_err(failed("routes"))?;
    let destination = |message: rtnetlink::packet_route::route::RouteMessage| {
        let length = message.header.destination_prefix_length;
        message.attributes.into_iter().find_map(|attribute| match attribute {
            rtnetlink::packet_route::route::RouteAttribute::Destination(
                rtnetlink::packet_route::route::RouteAddress::Inet(address),
            ) => ipnet::Ipv4Net::new(address, length).ok(),
            _ => None,
        })
    };
    Ok(all.into_iter().filter_map(destination).collect())
}
