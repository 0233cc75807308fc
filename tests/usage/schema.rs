//! Reads records, and judges every one by the documented schema; what the schema does not name is refused as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use turnstone::addr::Transport;

#[test]
fn the_schema_has_every_transport() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    // A transport more does not compile until it has its answer.
    let name = |transport| match transport {
        Transport::Udp | Transport::Tcp | Transport::Tls | Transport::Dtls => Value::from(Transport::name(transport)),
    };
    let all = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls].map(name);
    assert_eq!(schema["$defs"]["transport"]["enum"], Value::from(all.to_vec()));
}

const SCHEMA: &str = include_str!("../../docs/usage-record.schema.json");

/// One record, which the schema allows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record(pub(crate) Value);

impl Record {
    pub(crate) fn parse(line: &str) -> Record {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        if let Err(problem) = judge(&schema, &schema, &value) {
            panic!("{problem}: {value}");
        }
        Record(value)
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("type")
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.0))
    }

    pub(crate) fn seq(&self) -> u64 {
        self.0["seq"].as_u64().unwrap()
    }

    pub(crate) fn traffic(&self, key: &str) -> (u64, u64) {
        let figure = |name: &str| self.0[key][name].as_u64().unwrap();
        (figure("packets"), figure("bytes"))
    }
}

/// Every file of records in a folder, the oldest first.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    // `usage-TIME.jsonl` before `usage-TIME-2.jsonl` before `usage-TIME-10.jsonl` before `usage.jsonl`.
    files.sort_by_key(|path| {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut parts = stem.splitn(3, '-').skip(1).map(str::to_owned);
        let stamp = parts.next().unwrap_or_else(|| "9".to_owned());
        (stamp, parts.next().map_or(1, |number| number.parse::<u32>().unwrap()))
    });
    files
}

/// Every record in a folder, in order; each line must be one.
pub(crate) fn read(folder: &Path) -> Vec<Record> {
    let text: String = files(folder).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(Record::parse).collect()
}

/// Whether the numbers of each instance count from 1 without gap or repetition.
pub(crate) fn assert_dense(records: &[Record]) {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for record in records {
        let expected = next.entry(record.text("server")).or_insert(1);
        assert_eq!(record.seq(), *expected, "{:?}", record.0);
        *expected += 1;
    }
}

/// The part of JSON Schema that ours uses; a keyword beyond it fails.
fn judge(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    for (keyword, wanted) in schema.as_object().unwrap() {
        let fails = |what: &str| Err(format!("{value} {what} {wanted}"));
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                judge(root, root["$defs"].get(name).unwrap(), value)?;
            }
            "oneOf" => {
                let verdicts: Vec<_> = wanted.as_array().unwrap().iter().map(|one| judge(root, one, value)).collect();
                if verdicts.iter().filter(|verdict| verdict.is_ok()).count() != 1 {
                    return Err(format!("not exactly one of {verdicts:?}"));
                }
            }
            "type" => {
                let is = match wanted.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("type {other}"),
                };
                if !is {
                    return fails("is not of the type");
                }
            }
            "required" => {
                if let Some(lacking) =
                    wanted.as_array().unwrap().iter().find(|key| value.get(key.as_str().unwrap()).is_none())
                {
                    return Err(format!("lacks {lacking}"));
                }
            }
            "properties" => {
                for (key, value) in value.as_object().unwrap() {
                    let schema = wanted.get(key).ok_or_else(|| format!("{key} is not in the schema"))?;
                    judge(root, schema, value).map_err(|problem| format!("{key}: {problem}"))?;
                }
            }
            "items" => value.as_array().unwrap().iter().try_for_each(|item| judge(root, wanted, item))?,
            "enum" if !wanted.as_array().unwrap().contains(value) => return fails("is not one of"),
            "const" if wanted != value => return fails("is not"),
            "minimum" if value.as_f64().unwrap() < wanted.as_f64().unwrap() => return fails("is less than"),
            "minLength" if (value.as_str().unwrap().len() as u64) < wanted.as_u64().unwrap() => {
                return fails("is shorter than");
            }
            "maxLength" if value.as_str().unwrap().len() as u64 > wanted.as_u64().unwrap() => {
                return fails("is longer than");
            }
            "format" => {
                let text = value.as_str().unwrap();
                let pattern: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
                assert_eq!(wanted, "date-time");
                if pattern != "0000-00-00T00:00:00.000Z" {
                    return fails("is not a");
                }
            }
            "enum" | "const" | "minimum" | "minLength" | "maxLength" => {}
            other => panic!("the test does not know the keyword {other}"),
        }
    }
    Ok(())
}
