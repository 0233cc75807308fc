//! What a configuration has, as the values that are shown.

use std::time::Duration;

use super::value::Value;

pub(super) fn boolean(value: bool) -> Option<Value> {
    Some(Value::Boolean(value))
}

pub(super) fn number(number: usize) -> Option<Value> {
    Some(Value::Number(number as u64))
}

pub(super) fn text(text: impl Into<String>) -> Option<Value> {
    Some(Value::Text(text.into()))
}

pub(super) fn texts<T: ToString>(texts: &[T]) -> Option<Value> {
    Some(Value::List(texts.iter().map(|text| Value::Text(text.to_string())).collect()))
}

pub(super) fn limit<T: Into<u64>>(limit: Option<T>) -> Option<Value> {
    limit.map_or_else(|| text("unlimited"), |limit| Some(Value::Number(limit.into())))
}

pub(super) fn rate(limit: Option<u64>) -> Option<Value> {
    limit.map_or_else(|| text("unlimited"), |bytes| Some(Value::Rate(bytes)))
}

pub(super) fn or_off(value: Option<Value>) -> Option<Value> {
    value.or_else(|| text("off"))
}

pub(super) fn secs(secs: u32) -> Option<Value> {
    Some(Value::Duration(Duration::from_secs(secs.into())))
}
