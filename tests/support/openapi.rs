//! An OpenAPI document, which answers are held against.

use serde_json::{Value, json};

/// The document.
pub struct OpenApi(pub Value);

impl OpenApi {
    pub fn read(text: &str) -> OpenApi {
        OpenApi(serde_json::from_str(text).unwrap())
    }

    /// Fails unless a value is one that a schema of the document has.
    pub fn validate(&self, schema: Value, value: &Value, what: &str) {
        let Value::Object(mut root) = schema else { panic!("{what}: no schema") };
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("components".to_owned(), self.0["components"].clone());
        let validator = jsonschema::validator_for(&Value::Object(root)).unwrap();
        let problems: Vec<_> =
            validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{what}: {problems:?} in {value}");
    }

    /// What a reference leads to; anything else itself.
    pub fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(pointer) => self.0.pointer(pointer.trim_start_matches('#')).unwrap_or_else(|| panic!("no {pointer}")),
            None => value,
        }
    }

    /// Fails unless every reference leads somewhere, and every schema is one. Returns how many references there are.
    pub fn check_references(&self) -> usize {
        assert_eq!(self.0["openapi"], "3.1.0");
        let mut waiting = vec![&self.0];
        let mut references = 0;
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(fields) => {
                    waiting.extend(fields.values());
                    if fields.contains_key("$ref") {
                        self.resolved(value);
                        references += 1;
                    }
                }
                Value::Array(items) => waiting.extend(items),
                _ => {}
            }
        }
        for (name, schema) in self.0["components"]["schemas"].as_object().unwrap() {
            assert!(jsonschema::meta::is_valid(schema), "{name}");
        }
        references
    }
}
