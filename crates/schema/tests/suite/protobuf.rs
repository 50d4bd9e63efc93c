//! Protobuf: there and back for every kind, against bytes that another reader takes apart, and with bytes that are wrong.

use std::collections::BTreeSet;

use isopod_schema::protobuf::{self, EncodeError, ProtobufError};
use isopod_schema::{Gvk, Shape, Table, TypeRef};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::kind;

fn type_of(api_version: &str, kind: &str) -> TypeRef<'static> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Table::builtin().type_of(&Gvk::new(group, version, kind)).expect(kind)
}

/// A reader of protobuf that knows nothing of Kubernetes: `number:varint`, `number"text"` and, for the numbers in
/// `messages` (as `1.2`, from the outside in), `number{fields}`.
fn dump(mut bytes: &[u8], around: &str, messages: &BTreeSet<&str>) -> String {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).expect("a varint ends") + 1;
        let number = bytes[..length].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
        *bytes = &bytes[length..];
        number
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let (number, wire) = (key >> 3, key & 7);
        let path = if around.is_empty() { number.to_string() } else { format!("{around}.{number}") };
        if wire == 0 {
            fields.push(format!("{number}:{}", varint(&mut bytes)));
            continue;
        }
        assert_eq!(wire, 2, "{path}");
        let length = varint(&mut bytes) as usize;
        let (content, rest) = bytes.split_at(length);
        bytes = rest;
        fields.push(match messages.contains(path.as_str()) {
            true => format!("{number}{{{}}}", dump(content, &path, messages)),
            false => format!("{number}{:?}", String::from_utf8_lossy(content)),
        });
    }
    fields.join(" ")
}

/// What is inside the envelope of `object`, as [`dump`] shows it.
fn check_dump(object: &Value, messages: &str, expected: &str) {
    let bytes = protobuf::encode(object).expect("encodes");
    let envelope = bytes.strip_prefix(b"k8s\0").expect("the magic bytes");
    let messages: BTreeSet<String> = ["1".to_owned(), "2".to_owned()]
        .into_iter()
        .chain(messages.split(' ').map(|path| format!("2.{path}")))
        .collect();
    let head = format!("1{{1{} 2{}}} 2{{", object["apiVersion"], object["kind"]);
    let found = dump(envelope, "", &messages.iter().map(String::as_str).collect());
    assert_eq!(found, format!("{head}{expected}}} 3\"\" 4\"\""));
}

#[test]
fn another_reader_finds_every_field() {
    let metadata = r#"1{1"x" 2"" 3"" 4"" 5"" 6"7" 7:0 8"" 11{1"a" 2"b"}}"#;
    let labelled = json!({"name": "x", "resourceVersion": "7", "labels": {"a": "b"}});
    check_dump(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": labelled, "data": {"z": "", "k": "v"}}),
        "1 1.11 2",
        &format!(r#"{metadata} 2{{1"k" 2"v"}} 2{{1"z" 2""}}"#),
    );
    // `strategy` and `status` are plain structs and always there, `replicas` is a pointer: there although zero.
    check_dump(
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": labelled, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {}, "spec": {"containers": []}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}}),
        "1 1.11 2 2.2 2.2.1 2.3 2.3.1 2.3.2 2.4 2.4.2 2.4.2.1 2.4.2.2 3",
        &format!(
            "{metadata} 2{{1:0 2{{1{{1\"a\" 2\"b\"}}}} 3{{1{{1\"\" 2\"\" 3\"\" 4\"\" 5\"\" 6\"\" 7:0 8\"\"}} \
             2{{3\"\" 6\"\" 8\"\" 9\"\" 10\"\" 11:0 12:0 13:0 16\"\" 17\"\" 19\"\" 24\"\"}}}} \
             4{{1\"\" 2{{1{{1:0 2:1 3\"\"}} 2{{1:1 2:0 3\"25%\"}}}}}} 5:0 7:0}} 3{{1:0 2:0 3:0 4:0 5:0 7:0}}"
        ),
    );
    check_dump(
        &json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "no", "reason": "NotFound",
                "details": {"name": "x", "kind": "pods", "causes": [{"reason": "r", "message": "m"}]}, "code": 404}),
        "1 5 5.4",
        r#"1{1"" 2"" 3""} 2"Failure" 3"no" 4"NotFound" 5{1"x" 2"" 3"pods" 4{1"r" 2"m" 3""} 5:0 6""} 6:404"#,
    );
    check_dump(
        &json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "creationTimestamp": "1970-01-01T00:00:09Z"},
                "involvedObject": {"kind": "Pod", "apiVersion": "v1"}, "eventTime": "1969-12-31T23:59:59.500000Z"}),
        "1 1.8 2 10",
        "1{1\"e\" 2\"\" 3\"\" 4\"\" 5\"\" 6\"\" 7:0 8{1:9 2:0}} 2{1\"Pod\" 2\"\" 3\"\" 4\"\" 5\"v1\" 6\"\" 7\"\"} 3\"\" 4\"\" \
         5\"\\n\\0\\u{12}\\0\" 6\"\" 7\"\" 8:0 9\"\" 10{1:18446744073709551615 2:500000000} 12\"\" 14\"\" 15\"\"",
    );
    check_dump(
        &json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "9"},
                "items": [{"metadata": labelled}]}),
        "1 2 2.1 2.1.11",
        &format!(r#"1{{1"" 2"9" 3""}} 2{{{metadata}}}"#),
    );
}

/// Values that Go's JSON would show: plain structs always, plain scalars that may be left out only when they are not zero.
struct Maker(u64);

impl Maker {
    /// The next number below `limit` (splitmix).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }

    fn object(&mut self, ty: TypeRef<'_>, depth: usize) -> Value {
        let mut object = Map::new();
        let whole = !ty.get().gvks.is_empty();
        for field in &ty.get().fields {
            let of_envelope = whole && matches!(field.name.as_str(), "apiVersion" | "kind");
            if field.proto.is_none() || of_envelope {
                continue;
            }
            let collection = matches!(field.shape, Shape::List(_) | Shape::Map(_) | Shape::Bytes);
            let is_struct =
                matches!(field.shape, Shape::Object(_) | Shape::Quantity | Shape::IntOrString) && !field.pointer;
            let must = is_struct || !field.omit_empty && !field.pointer && !collection && !is_whole(&field.shape);
            if must || depth < 7 && self.below(3) > 0 {
                object.insert(field.name.clone(), self.value(ty, &field.shape, depth));
            }
        }
        object.into()
    }

    fn value(&mut self, ty: TypeRef<'_>, shape: &Shape, depth: usize) -> Value {
        let number = self.below(1 << 40) as i64 + 1;
        match shape {
            Shape::String => format!("té{number}").into(),
            Shape::Int32 => (number as i32).max(1).into(),
            Shape::Int64 => (-number).into(),
            Shape::Double => (number as f64 / 4.0).into(),
            Shape::Bool => true.into(),
            Shape::Bytes => "/wA=".into(),
            Shape::Quantity => format!("{number}m").into(),
            Shape::IntOrString if number % 2 == 0 => "25%".into(),
            Shape::IntOrString => (number as i32).max(1).into(),
            Shape::Time => "2026-01-02T03:04:05Z".into(),
            Shape::MicroTime => "1926-01-02T03:04:05.000006Z".into(),
            Shape::RawExtension | Shape::FieldsV1 | Shape::Json => json!({"f:a": {}, "n": [number, null, ""]}),
            Shape::ObjectOr(_, name) if depth > 7 && name.ends_with("OrBool") => json!(number % 2 == 0),
            Shape::ObjectOr(_, name) if name.ends_with("OrStringArray") => json!(["a", "b"]),
            Shape::ObjectOr(id, _) | Shape::Object(id) => self.object(ty.with(*id), depth + 1),
            Shape::List(item) => (0..=self.below(2)).map(|_| self.value(ty, item, depth + 1)).collect(),
            Shape::Map(item) => {
                (0..=self.below(2)).map(|at| (format!("k{at}"), self.value(ty, item, depth + 1))).collect()
            }
        }
    }
}

fn is_whole(shape: &Shape) -> bool {
    matches!(shape, Shape::Time | Shape::MicroTime | Shape::RawExtension | Shape::FieldsV1 | Shape::Json)
}

/// Every built-in type with messages that stands for a kind: the kinds, their lists, options, reviews.
fn kinds() -> impl Iterator<Item = (TypeRef<'static>, Gvk)> {
    let encodable = Table::builtin().types().iter().filter(|ty| protobuf::is_encodable(*ty));
    encodable.filter_map(|ty| ty.get().gvks.first().map(|gvk| (ty, gvk.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_survives_the_way_there_and_back(seed in any::<u64>()) {
        for (at, (ty, gvk)) in kinds().enumerate() {
            let mut object = Maker(seed ^ at as u64).object(ty, 0);
            object["apiVersion"] = gvk.api_version().into();
            object["kind"] = gvk.kind.as_str().into();
            let bytes = protobuf::encode(&object).map_err(|error| TestCaseError::fail(format!("{gvk:?}: {error}")))?;
            prop_assert_eq!(protobuf::decode(ty, &bytes).expect("decodes"), object);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(seed in any::<u64>(), cut in 0usize..4_000, flips in prop::collection::vec((0usize..4_000, any::<u8>()), 0..6)) {
        let ty = kind("pods").root();
        let mut pod = Maker(seed).object(ty, 4);
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        let mut bytes = protobuf::encode(&pod).expect("encodes");
        for (at, byte) in flips {
            let length = bytes.len();
            bytes[at % length] ^= byte;
        }
        bytes.truncate(bytes.len() - cut % bytes.len());
        if let Ok(object) = protobuf::decode(ty, &bytes) {
            let _ = protobuf::encode(&object);
        }
    }
}

#[test]
fn every_kind_that_is_stored_has_messages_but_ours() {
    for kind in Table::builtin().kinds() {
        assert_eq!(
            protobuf::is_encodable(kind.root()),
            !["isopod.dev", "metrics.k8s.io"].contains(&&*kind.group),
            "{} {}",
            kind.group,
            kind.kind
        );
    }
    assert!(kinds().count() > 130, "{}", kinds().count());
}

#[test]
fn no_two_fields_share_a_number() {
    for ty in Table::builtin().types().iter().map(TypeRef::get) {
        let mut paths = BTreeSet::new();
        for field in
            ty.fields.iter().filter(|field| ty.gvks.is_empty() || !["apiVersion", "kind"].contains(&&*field.name))
        {
            let Some(proto) = &field.proto else { continue };
            let path: Vec<u32> = proto.via.iter().copied().chain([proto.tag]).collect();
            assert!(paths.insert(path), "{} {}", ty.name, field.name);
        }
    }
}

#[test]
fn lists_and_events_are_put_together_around_messages() {
    let item =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": "v".repeat(300)}});
    let metadata = json!({"resourceVersion": "5", "remainingItemCount": 2, "continue": "c"});
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": [item, item]});
    let message = protobuf::message(kind("configmaps").root(), &item).expect("encodes");
    let mut raw = protobuf::list_head(&metadata).expect("encodes");
    for _ in 0..2 {
        raw.extend(protobuf::item_head(message.len()));
        raw.extend(&message);
    }
    let (head, end) = protobuf::envelope_ends("v1", "ConfigMapList", raw.len());
    assert_eq!([head.as_slice(), &raw, end].concat(), protobuf::encode(&list).expect("encodes"));
    let whole = protobuf::encode(&item).expect("encodes");
    let event = [protobuf::event_head("ADDED", whole.len()), whole.clone()].concat();
    let (length, body) = event.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().expect("four bytes")) as usize, body.len());
    assert!(body.ends_with(&whole));
    let shown = dump(body, "", &["2"].into());
    assert!(shown.starts_with(r#"1"ADDED" 2{1"k8s\0"#) && shown.ends_with('}'), "{shown}");
}

#[test]
fn what_is_no_object_is_refused_by_name() {
    let pod = |raw: &[u8]| {
        let (head, end) = protobuf::envelope_ends("v1", "Pod", raw.len());
        protobuf::decode(kind("pods").root(), &[head.as_slice(), raw, end].concat())
    };
    let deep = (0..200).fold(Vec::new(), |inner, _| {
        // JSONSchemaProps.not is number 28 of the schema.
        let mut outer = vec![0xe2, 0x01];
        let mut length = inner.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        [outer, inner].concat()
    });
    let schema = |raw: &[u8]| {
        let (head, end) = protobuf::envelope_ends("v1", "X", raw.len());
        let ty =
            Table::builtin().types().named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
        protobuf::decode(ty.expect("a type"), &[head.as_slice(), raw, end].concat())
    };
    assert_eq!(pod(&[0x0a, 9]), Err(ProtobufError::Short));
    assert_eq!(pod(&[0x0a]), Err(ProtobufError::Short));
    assert_eq!(pod(&[0xff; 12]), Err(ProtobufError::Short));
    assert_eq!(pod(&[0x08, 1]), Err(ProtobufError::Wire { field: "metadata".into() }));
    assert_eq!(pod(&[0x0b]), Err(ProtobufError::Wire { field: "number 1".into() }));
    assert_eq!(pod(&[0x0a, 3, 0x0a, 1, 0xff]), Err(ProtobufError::Text("name".into())));
    assert_eq!(protobuf::decode(type_of("v1", "Pod"), b"{}"), Err(ProtobufError::Magic));
    assert_eq!(schema(&deep), Err(ProtobufError::Depth));
    let wrong = |object: Value| protobuf::encode(&object).expect_err("is refused");
    assert_eq!(wrong(json!({"apiVersion": "v1", "kind": "Pod", "spec": []})), EncodeError::Value("spec".into()));
    assert_eq!(
        wrong(json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "%"}})),
        EncodeError::Value("data".into())
    );
    let unknown = EncodeError::Kind { api_version: "isopod.dev/v1alpha1".into(), kind: "Host".into() };
    assert_eq!(wrong(json!({"apiVersion": "isopod.dev/v1alpha1", "kind": "Host"})), unknown);
}

#[test]
fn bytes_that_other_writers_make_are_read() {
    fn check(api_version: &str, name: &str, raw: &[u8], mut expected: Value) {
        let (head, end) = protobuf::envelope_ends(api_version, name, raw.len());
        let found = protobuf::decode(type_of(api_version, name), &[head.as_slice(), raw, end].concat());
        expected["apiVersion"] = api_version.into();
        expected["kind"] = name.into();
        assert_eq!(found, Ok(expected));
    }
    // Fields in any order, unknown ones, and plain zeros, which JSON leaves out; `replicas` is a pointer and stays.
    let spec = [0x12, 9, 40, 0, 8, 0, 0xf8, 0x07, 1, 0x38, 0];
    check("apps/v1", "Deployment", &spec, json!({"spec": {"replicas": 0}}));
    let negative = [&[0x12, 11, 0x08][..], &[0xff; 9], &[1]].concat();
    check("apps/v1", "Deployment", &negative, json!({"spec": {"replicas": -1}}));
    let port = [0x12, 14, 0x0a, 12, 24, 80, 34, 8, 8, 1, 26, 4, b'h', b't', b't', b'p'];
    check("v1", "Service", &port, json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}));
    check("v1", "Secret", &[0x12, 7, 0x0a, 1, b'k', 0x12, 2, 0xff, 0], json!({"data": {"k": "/wA="}}));
}
