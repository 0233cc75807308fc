//! `docs/credentials-api.openapi.json` and what the server really does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::Api;
use crate::support::{OpenApi, TestServer};
use crate::{KEY, PAGE, PLAIN, config};

const TEXT: &str = include_str!("../../docs/credentials-api.openapi.json");

/// The OpenAPI document.
pub(crate) struct Document(OpenApi);

impl Document {
    pub(crate) fn read() -> Document {
        Document(OpenApi::read(TEXT))
    }

    /// Fails unless an answer is one that the document has for this request.
    pub(crate) fn check(&self, method: &str, target: &str, status: u16, body: &str) {
        let path = target.split('?').next().unwrap();
        let operation = self.0.0["paths"].get(path).and_then(|item| item.get(method.to_lowercase()));
        let schema = match operation {
            Some(operation) => {
                let response = &operation["responses"][status.to_string()];
                assert!(!response.is_null(), "{method} {target}: {status} is not documented: {body}");
                self.0.resolved(response)["content"]["application/json"]["schema"].clone()
            }
            // A path or a method that there is none of.
            None => {
                let unknown = if self.0.0["paths"].get(path).is_some() { 405 } else { 404 };
                assert!([unknown, 429].contains(&status), "{method} {target}: {status} {body}");
                json!({ "$ref": "#/components/schemas/Error" })
            }
        };
        if schema.is_null() {
            return assert_eq!(body, "", "{method} {target}: {status} has no body in the document");
        }
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        self.0.validate(schema, &body, &format!("{method} {target}: {status}"));
    }
}

#[test]
fn the_document_is_what_the_server_serves_to_anybody_and_every_reference_in_it_leads_somewhere() {
    let server = TestServer::start(&config(PLAIN, ""));
    let document = Document::read();
    let served = Api::of(&server).send("GET", "/v1/openapi.json", "", "");
    assert_eq!((served.status, served.json()), (200, document.0.0.clone()));
    let references = document.0.check_references();
    assert!(references > 10, "{references}");
}

#[test]
fn the_example_of_the_document_is_a_request_and_every_documented_path_is_answered() {
    let server = TestServer::start(&config(PLAIN, ""));
    let (api, document) = (Api::of(&server), Document::read());
    let post = &document.0.0["paths"]["/v1/credentials"]["post"];
    let content = &post["requestBody"]["content"]["application/json"];
    document.0.validate(content["schema"].clone(), &content["example"], "the example");
    assert_eq!(api.ask(&content["example"].to_string()).status, 201);
    for (path, item) in document.0.0["paths"].as_object().unwrap() {
        let documented: BTreeSet<_> = item.as_object().unwrap().keys().map(|key| key.to_uppercase()).collect();
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let headers = format!("Authorization: Bearer {KEY}\r\nOrigin: {PAGE}\r\n");
            let status = api.send(method, path, &headers, "").status;
            let is_there = documented.contains(method) || method == "OPTIONS";
            assert_eq!(status != 405, is_there, "{method} {path}: {status}");
        }
    }
}
