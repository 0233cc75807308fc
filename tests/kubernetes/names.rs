//! What the DNS of a cluster says of a headless Service and of the pods behind it (github.com/kubernetes/dns, specification 1.1).

use std::net::{IpAddr, UdpSocket};

use serde_json::Value;

const CLUSTER_DOMAIN: &str = "cluster.local";
const TYPE_A: u16 = 1;
const TYPE_SRV: u16 = 33;
const NO_SUCH_NAME: u8 = 3;

/// A Service of a manifest.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) is_headless: bool,
    /// Its name in DNS.
    pub(crate) domain: String,
    /// Its only port.
    port: Value,
}

impl Service {
    pub(crate) fn of(manifest: &Value) -> Self {
        let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        let ports = manifest["spec"]["ports"].as_array().unwrap();
        assert_eq!(ports.len(), 1, "{manifest}");
        Self {
            is_headless: manifest["spec"]["clusterIP"] == "None",
            domain: format!("{name}.turnstone.svc.{CLUSTER_DOMAIN}"),
            port: ports[0].clone(),
            name,
        }
    }

    /// The port of a pod that it leads to.
    pub(crate) fn port_of(&self, pod: &Value) -> u16 {
        let ports = pod["containers"][0]["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == self.port["targetPort"]).unwrap();
        u16::try_from(port["containerPort"].as_u64().unwrap()).unwrap()
    }

    /// The name of the records that have a port.
    fn srv_name(&self) -> String {
        let protocol = self.port["protocol"].as_str().unwrap().to_lowercase();
        format!("_{}._{protocol}.{}", self.port["name"].as_str().unwrap(), self.domain)
    }
}

/// Answers at an address as long as the process lives: these are the pods of that Service.
pub(crate) fn name_server(ip: IpAddr, service: &Service, port: u16, pods: Vec<IpAddr>) {
    let socket = UdpSocket::bind((ip, 53)).unwrap();
    let (srv_name, domain) = (service.srv_name(), service.domain.clone());
    std::thread::spawn(move || {
        let host = |pod: &IpAddr| format!("{}.{domain}", pod.to_string().replace('.', "-"));
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Some((name, kind, question)) = question(&buffer[..length]) else { continue };
            let records: Vec<Vec<u8>> = match kind {
                TYPE_SRV if name == srv_name => pods
                    .iter()
                    .map(|pod| [&[0, 0, 0, 50], &port.to_be_bytes()[..], &labels(&host(pod))].concat())
                    .collect(),
                TYPE_A => pods.iter().filter(|pod| host(pod) == name).map(address).collect(),
                _ => Vec::new(),
            };
            let is_known = name == srv_name || pods.iter().any(|pod| host(pod) == name);
            let code = if is_known { 0 } else { NO_SUCH_NAME };
            let mut answer =
                [&buffer[..2], &[0x85, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0], question].concat();
            for data in records {
                // The name is that of the question, and is good for five seconds.
                answer.extend(
                    [&[0xc0, 12], &kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 5, 0, data.len() as u8], &data].concat(),
                );
            }
            let _ = socket.send_to(&answer, from);
        }
    });
}

fn address(pod: &IpAddr) -> Vec<u8> {
    match pod {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The name that a message asks for, of what type, and the question as it is there.
fn question(message: &[u8]) -> Option<(String, u16, &[u8])> {
    let (mut at, mut name) = (12, Vec::new());
    while let length @ 1.. = usize::from(*message.get(at)?) {
        name.push(String::from_utf8(message.get(at + 1..at + 1 + length)?.to_ascii_lowercase()).ok()?);
        at += 1 + length;
    }
    let kind = message.get(at + 1..at + 3)?;
    Some((name.join("."), u16::from_be_bytes([kind[0], kind[1]]), message.get(12..at + 5)?))
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}
