//! Query parameters: decoding and typed access. Pure.

use isopod_schema::Status;

/// Decoded parameters in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    /// The first value; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A boolean as Kubernetes reads them: present and not `false` (in any case) or `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.all(name).next().is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// A number.
    ///
    /// # Errors
    /// 400 when it is none.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

/// Percent-decoding of a query component; `+` is a space. What is not an escape stays as it is.
fn decode(text: &str) -> String {
    decode_bytes(&text.replace('+', " "))
}

/// Percent-decoding of a path segment.
pub(crate) fn decode_path(text: &str) -> String {
    decode_bytes(text)
}

fn decode_bytes(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte =
            escape.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once() {
        let query = Query::parse("a=1&labelSelector=app%20in%20(a%2Cb)&c=x+y&c=z&flag&off=false&bad=%zz%4");
        assert_eq!(query.get("labelSelector"), Some("app in (a,b)"));
        assert_eq!(query.all("c").collect::<Vec<_>>(), ["x y", "z"]);
        assert_eq!((query.flag("flag"), query.flag("off"), query.flag("none")), (true, false, false));
        assert_eq!(query.get("bad"), Some("%zz%4"));
        assert_eq!(query.number::<u64>("a").unwrap(), Some(1));
        assert!(query.number::<u64>("c").is_err());
    }
}
