//! Users and groups by the image's own `/etc/passwd` and `/etc/group`. Pure: files in, numbers out.

use isopod_guest_api::ErrorKind;

use crate::fault::Fault;

/// Who a container's processes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Sorted, without doubles.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// What a configuration says about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// `name`, `uid`, `name:group`, `uid:gid`; empty: root.
    pub(crate) user: &'a str,
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_group: Option<i64>,
    pub(crate) supplemental_groups: &'a [i64],
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves `wanted`. As in container runtimes, a number need not be in the files, a name must.
pub(crate) fn resolve(wanted: &Wanted<'_>, passwd: &str, group: &str) -> Result<Identity, Fault> {
    let (user, group_name) = match wanted.user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted.user, None),
    };
    let run_as = wanted.run_as_user.map(|uid| id(uid, "runAsUser")).transpose()?;
    let text = run_as.map_or_else(|| user.to_owned(), |uid| uid.to_string());
    let account = account(&text, passwd)?;
    let gid = match (wanted.run_as_group, group_name) {
        (Some(gid), _) => id(gid, "runAsGroup")?,
        // The image's group belongs to the image's user, not to another one.
        (None, Some(name)) if run_as.is_none() => group_id(name, group)?,
        _ => account.gid,
    };
    let mut groups: Vec<u32> = members(account.name, group);
    for &extra in wanted.supplemental_groups {
        groups.push(id(extra, "supplementalGroups")?);
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid: account.uid, gid, groups, home: account.home.to_owned() })
}

fn id(number: i64, field: &str) -> Result<u32, Fault> {
    u32::try_from(number)
        .ok()
        .filter(|id| *id < u32::MAX)
        .ok_or_else(|| Fault::invalid(format!("{field} {number} is not a user or group id")))
}

fn account<'a>(user: &str, passwd: &'a str) -> Result<Account<'a>, Fault> {
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let found = passwd.lines().filter_map(parse_account).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    match (found, number) {
        (Some(account), _) => Ok(account),
        (None, Some(uid)) => Ok(Account { name: "", uid, gid: 0, home: if uid == 0 { "/root" } else { "/" } }),
        (None, None) => Err(Fault::new(
            ErrorKind::NoSuchUser,
            format!("unable to find user {user}: no matching entries in passwd file"),
        )),
    }
}

fn parse_account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let (name, _password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
    Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
}

fn group_id(name: &str, group: &str) -> Result<u32, Fault> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let found = group.lines().filter_map(parse_group).find(|(candidate, ..)| *candidate == name);
    found.map(|(_, gid, _)| gid).ok_or_else(|| {
        Fault::new(ErrorKind::NoSuchUser, format!("unable to find group {name}: no matching entries in group file"))
    })
}

fn members(name: &str, group: &str) -> Vec<u32> {
    let groups = group.lines().filter_map(parse_group);
    groups
        .filter(|(.., members)| !name.is_empty() && members.split(',').any(|member| member == name))
        .map(|(_, gid, _)| gid)
        .collect()
}

fn parse_group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?);
    Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nnginx:x:101:102::/var/nginx:/bin/false\nnohome:x:7:8\n";
    const GROUP: &str = "root:x:0:\nnginx:x:102:\nweb:x:50:nginx,other\n";

    fn check(wanted: &Wanted<'_>, expected: Result<(u32, u32, &[u32], &str), &str>) {
        let found = resolve(wanted, PASSWD, GROUP);
        match (&found, expected) {
            (Ok(found), Ok((uid, gid, groups, home))) => {
                assert_eq!(
                    (found.uid, found.gid, &found.groups[..], &found.home[..]),
                    (uid, gid, groups, home),
                    "{wanted:?}"
                );
            }
            (Err(fault), Err(text)) => assert!(fault.0.message.contains(text), "{fault}"),
            _ => panic!("{wanted:?}: {found:?}"),
        }
    }

    #[test]
    fn users_are_who_the_image_says() {
        let user = |user| Wanted { user, ..Wanted::default() };
        check(&user(""), Ok((0, 0, &[0], "/root")));
        check(&user("nginx"), Ok((101, 102, &[50, 102], "/var/nginx")));
        check(&user("101"), Ok((101, 102, &[50, 102], "/var/nginx")));
        check(&user("nginx:web"), Ok((101, 50, &[50], "/var/nginx")));
        check(&user("1234"), Ok((1234, 0, &[0], "/")));
        check(&user("1234:77"), Ok((1234, 77, &[77], "/")));
        check(&user("nohome"), Ok((7, 8, &[8], "/")));
        check(&user("nobody"), Err("unable to find user nobody"));
        check(&user("nginx:nogroup"), Err("unable to find group nogroup"));
    }

    #[test]
    fn the_security_context_wins() {
        let nginx = Wanted { user: "nginx:web", ..Wanted::default() };
        check(&Wanted { run_as_user: Some(0), ..nginx.clone() }, Ok((0, 0, &[0], "/root")));
        check(&Wanted { run_as_group: Some(9), ..nginx.clone() }, Ok((101, 9, &[9, 50], "/var/nginx")));
        check(&Wanted { supplemental_groups: &[3, 50, 3], ..nginx.clone() }, Ok((101, 50, &[3, 50], "/var/nginx")));
        check(&Wanted { run_as_user: Some(-1), ..nginx }, Err("runAsUser -1"));
    }
}
