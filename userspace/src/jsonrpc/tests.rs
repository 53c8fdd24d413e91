use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits { message: 100, depth: 4 };

fn objects(limits: Limits, chunks: &[&[u8]]) -> Result<Vec<String>, JsonRpcError> {
    let mut framer = Framer::new(limits);
    let mut found = Vec::new();
    for chunk in chunks {
        framer.buffer().extend_from_slice(chunk);
        while let Some(object) = framer.next_object()? {
            found.push(String::from_utf8_lossy(object).into_owned());
        }
    }
    Ok(found)
}

#[test]
fn objects_may_touch_or_stand_apart() {
    let found = objects(SMALL, &[b"{}{\"a\":[{}]} \n{\"b\":1}\n"]).unwrap();
    assert_eq!(found, ["{}", "{\"a\":[{}]}", "{\"b\":1}"]);
}

#[test]
fn brackets_and_quotes_in_strings_do_not_count() {
    let text = br#"{"}{":"]\"}\\"}"#;
    assert_eq!(objects(SMALL, &[text]).unwrap().len(), 1);
}

#[test]
fn truncated_objects_wait_for_more() {
    assert_eq!(objects(SMALL, &[b"{\"a\":\"}"]).unwrap().len(), 0);
}

#[test]
fn what_is_no_object_is_refused() {
    for (text, byte) in [("hello", b'h'), ("[1]", b'['), ("}", b'}'), ("\0", 0), ("\"x\"", b'"')] {
        let error = objects(SMALL, &[text.as_bytes()]).unwrap_err();
        assert!(matches!(error, JsonRpcError::NotAnObject(b) if b == byte), "{text}: {error}");
    }
}

#[test]
fn endless_nesting_is_refused() {
    let error = objects(SMALL, &[b"{\"a\":[[[[[[[["]).unwrap_err();
    assert!(matches!(error, JsonRpcError::TooDeep { limit: 4 }), "{error}");
}

#[test]
fn endless_messages_are_refused() {
    let long = format!("{{\"a\":\"{}", "x".repeat(200));
    let error = objects(SMALL, &[long.as_bytes()]).unwrap_err();
    assert!(matches!(error, JsonRpcError::TooLong { limit: 100 }), "{error}");
}

#[test]
fn many_messages_do_not_add_up_to_the_limit() {
    let chunk = b"{\"a\":\"0123456789\"}".as_slice();
    assert_eq!(objects(SMALL, &[chunk; 1000]).unwrap().len(), 1000);
}

#[test]
fn messages_are_told_apart() {
    let parse = |text: &str| Message::parse(text.as_bytes());
    let reply = |result| Message::Reply { id: json!(1), result };
    assert_eq!(parse(r#"{"id":1,"result":"x","error":null}"#).unwrap(), reply(Ok(json!("x"))));
    assert_eq!(parse(r#"{"id":1,"error":"no"}"#).unwrap(), reply(Err(json!("no"))));
    assert_eq!(parse(r#"{"id":1,"result":null,"error":null}"#).unwrap(), reply(Ok(Value::Null)));
    assert_eq!(
        parse(r#"{"id":"echo","method":"echo","params":[7]}"#).unwrap(),
        Message::Request { id: json!("echo"), method: "echo".into(), params: json!([7]) }
    );
    assert_eq!(
        parse(r#"{"method":"update","params":[]}"#).unwrap(),
        Message::Notification { method: "update".into(), params: json!([]) }
    );
}

#[test]
fn malformed_messages_are_errors() {
    let malformed: [&[u8]; 6] =
        [b"{]", b"{\"a\"}", b"{\"id\":1,}", b"{\"method\":5}", b"{\"id\":1,\"id\":2}", b"{\"id\":\"\xff\"}"];
    for text in malformed {
        let error = Message::parse(text).unwrap_err();
        assert!(matches!(error, JsonRpcError::Malformed(_)), "{}: {error}", text.escape_ascii());
    }
    assert!(matches!(Message::parse(b"{}"), Err(JsonRpcError::Shapeless)));
}

#[test]
fn a_long_dump_in_small_chunks_takes_linear_time() {
    // Four megabytes in 64-byte chunks: looking at everything again for each would be 10^11 steps.
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20));
    let chunks: Vec<&[u8]> = text.as_bytes().chunks(64).collect();
    let found = objects(Limits::OVSDB, &chunks).unwrap();
    assert!(found.len() == 1 && found[0] == text);
}

fn messages() -> impl Strategy<Value = Message> {
    let value = prop_oneof![
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        any::<bool>().prop_map(Value::from)
    ];
    let value = value.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop_oneof![
        (".*", value.clone()).prop_map(|(method, params)| Message::Notification { method, params }),
        (any::<u32>(), ".*", value.clone()).prop_map(|(id, method, params)| Message::Request {
            id: id.into(),
            method,
            params
        }),
        (any::<u32>(), value).prop_map(|(id, value)| Message::Reply { id: id.into(), result: Ok(value) }),
    ]
}

proptest! {
    #[test]
    fn chunks_do_not_matter(sent in prop::collection::vec(messages(), 1..5), sizes in prop::collection::vec(1usize..40, 1..20)) {
        let text: String = sent.iter().map(|message| message.to_value().to_string()).collect();
        let mut rest = text.as_bytes();
        let mut framer = Framer::new(Limits::OVSDB);
        let mut received = Vec::new();
        for size in sizes.iter().cycle() {
            let (chunk, tail) = rest.split_at((*size).min(rest.len()));
            rest = tail;
            framer.buffer().extend_from_slice(chunk);
            while let Some(object) = framer.next_object().unwrap() {
                received.push(Message::parse(object).unwrap());
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn junk_never_panics(junk in prop::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b'"'), Just(b'\\'), any::<u8>()], 0..200)) {
        let mut framer = Framer::new(SMALL);
        framer.buffer().extend_from_slice(&junk);
        while let Ok(Some(object)) = framer.next_object() {
            let _ = Message::parse(object);
        }
    }
}
