//! `docs/admin-api.openapi.json` and what the server really does.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::config;
use crate::support::{OpenApi, TestServer};

const TEXT: &str = include_str!("../../docs/admin-api.openapi.json");
const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"];

/// The OpenAPI document.
pub(crate) struct Document(OpenApi);

impl Document {
    pub(crate) fn read() -> Document {
        Document(OpenApi::read(TEXT))
    }

    fn paths(&self) -> &Map<String, Value> {
        self.0.0["paths"].as_object().unwrap()
    }

    /// The documented methods of a path.
    fn methods(&self, path: &str) -> BTreeSet<String> {
        let keys = self.paths()[path].as_object().unwrap().keys().map(|key| key.to_uppercase());
        keys.filter(|key| METHODS.contains(&key.as_str())).collect()
    }

    /// Fails unless an answer is one that the document has for this request.
    pub(crate) fn check(&self, method: &str, target: &str, status: u16, body: &Value) {
        let path = target.split('?').next().unwrap();
        let template = match path.strip_prefix("/v1/sessions/") {
            Some(id) if !id.is_empty() && !id.contains('/') => "/v1/sessions/{id}",
            _ => path,
        };
        let operation = self.0.0["paths"].get(template).and_then(|item| item.get(method.to_lowercase()));
        let schema = match operation {
            Some(operation) => {
                let response = &operation["responses"][status.to_string()];
                assert!(!response.is_null(), "{method} {target}: {status} is not documented: {body}");
                let response = self.0.resolved(response);
                response["content"]["application/json"]["schema"].clone()
            }
            // A path or a method that there is none of; who asks may not even be allowed to.
            None => {
                let unknown = if self.paths().contains_key(template) { 405 } else { 404 };
                assert!([unknown, 401, 403].contains(&status), "{method} {target}: {status} {body}");
                json!({ "$ref": "#/components/schemas/Error" })
            }
        };
        self.0.validate(schema, body, &format!("{method} {target}: {status}"));
    }
}

#[test]
fn the_document_is_what_the_server_serves_and_every_reference_in_it_leads_somewhere() {
    let server = TestServer::start(&config(""));
    let document = Document::read();
    assert_eq!(Api::of(&server).get("/v1/openapi.json"), document.0.0);
    let references = document.0.check_references();
    assert!(references > 50, "{references}");
}

#[test]
fn a_schema_that_an_answer_does_not_fit_is_noticed() {
    let document = Document::read();
    let fits =
        |body: Value| std::panic::catch_unwind(|| document.check("DELETE", "/v1/sessions?user=a", 200, &body)).is_ok();
    assert!(fits(json!({ "ended": 1 })));
    for bad in [json!({}), json!({ "ended": "1" }), json!({ "ended": -1 }), json!({ "ended": 1, "more": 1 }), json!([])]
    {
        assert!(!fits(bad.clone()), "{bad}");
    }
}

#[test]
fn every_documented_path_and_method_is_answered_and_no_other_method_is() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let document = Document::read();
    let instance = api.get("/v1/status")["instance"].as_str().unwrap().to_owned();
    for path in document.paths().keys() {
        let known = document.methods(path);
        assert!(!known.is_empty(), "{path}");
        let target = path.replace("{id}", &format!("{instance}-0-99"));
        for method in METHODS {
            // A drain would end the server; a body that is not JSON shows that the path has the method.
            let response = api.call(method, &target, Some("{"));
            let allow = response.head.lines().find_map(|line| line.strip_prefix("allow: ")).map(str::to_uppercase);
            if known.contains(method) {
                assert_ne!(response.status, 405, "{method} {path}");
                assert_ne!(
                    response.body["error"]["message"].as_str().map(|text| text.contains("no path")),
                    Some(true),
                    "{method} {path}"
                );
            } else {
                let allow: BTreeSet<_> = allow.as_deref().unwrap_or_default().split(", ").map(str::to_owned).collect();
                assert_eq!((response.status, allow), (405, known.clone()), "{method} {path}");
            }
        }
    }
}

#[test]
fn every_documented_parameter_is_known_and_no_other_is() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let document = Document::read();
    for path in document.paths().keys() {
        for method in document.methods(path) {
            let target = path.replace("{id}", "00000000-0-1");
            let (status, _, message) = api.refused(&method, &format!("{target}?no-such-key=1"), None);
            assert_eq!(status, 400, "{method} {path}");
            let (_, known) = message.split_once("expected ").unwrap_or_else(|| panic!("{message}"));
            let known: BTreeSet<_> = known.split(", ").filter(|key| *key != "none").map(str::to_owned).collect();
            let operation = &document.0.0["paths"][path][method.to_lowercase()];
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let documented: BTreeSet<_> = parameters
                .map(|parameter| document.0.resolved(parameter))
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(known, documented, "{method} {path}");
        }
    }
}
