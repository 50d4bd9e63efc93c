//! Who asks: the identity that authentication finds and everything after it uses. Plain data.

use std::collections::BTreeMap;

/// Group of those who may do everything.
pub const MASTERS: &str = "system:masters";
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// An identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, such as `kubernetes-admin` or `system:serviceaccount:default:default`.
    pub name: String,
    /// Unique id; empty when there is none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What the authenticator knows besides.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An authenticated user with these groups, `system:authenticated` added.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A service account, with the groups all service accounts have.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = [SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
        let user = Self::new(format!("system:serviceaccount:{namespace}:{name}"), groups);
        Self { uid: uid.into(), ..user }
    }

    /// Somebody who gave no credentials.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// The user is in the group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The user may do everything.
    pub fn is_master(&self) -> bool {
        self.is_in(MASTERS)
    }
}

/// Splits `system:serviceaccount:NAMESPACE:NAME`.
pub(crate) fn service_account_parts(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}
