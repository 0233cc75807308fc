//! What the chart makes, on paper.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::helm::{LIMIT, SOURCES, blocks_of_the_page, documents, helm, render, validate};
use crate::support::run;

/// The oldest version that the chart is for, the newest that there is, and some between.
const VERSIONS: [&str; 4] = ["1.25.0", "1.29.0", "1.33.0", "1.37.0"];

/// Values for each shape, every template and branch of which is in one of them.
const SHAPES: &[&[&str]] = &[
    &[],
    &[
        "--set=listeners={udp://*:3478,tcp://*:3478,tls://*:443},tls.secretName=turn-tls,relay.externalIp={auto}",
        "--set=relay.externalIpSources={metadata:aws,stun:stun.example.net},externalDns.hostname=turn.example.org",
        "--set=podMonitor.enabled=true,store.url=rediss://store.example.org,store.passwordSecret=turnstone-store",
        "--set=store.caSecret=store-ca",
        "--set=publicHost=turn.example.org,priorityClassName=high,podAnnotations.a=b,podLabels.c=d",
        "--set=tolerations[0].operator=Exists,imagePullSecrets[0].name=registry",
        "--set=env.TURNSTONE_QUOTA_ALLOCATIONS_PER_USER=20,env.TURNSTONE_MOBILITY=true",
        "--set=secretFiles={turnstone-users,hook.token}",
        "--set-string=config=[quota]\nallocations-total = 1000\n",
    ],
    &["FOR-A-DEPLOYMENT"],
    &[
        "FOR-A-DEPLOYMENT",
        "--set=replicas=1,relay.ports=shared:3480-3481,relay.externalIp={203.0.113.5},peers.mode=p2p,peers.allowed=null",
        "--set=externalDns.hostname=turn.example.org,service.annotations.a=b,service.loadBalancerClass=example.org/balancer",
    ],
    // Numbers are keys of a Secret as good as any.
    &[
        "FOR-A-DEPLOYMENT",
        "--set-string=secret.keys={secret,2026},nonceKey.secretName=turnstone-nonces,store.urlSecret=turnstone-store",
    ],
    &["FOR-A-FLEET"],
    &[
        "FOR-A-DEPLOYMENT",
        "FOR-A-FLEET",
        "--set=tls.secretName=turn-tls,fleet.certificateName=turn.example.org,credentials.plainHttp=true",
        "--set=credentials.service.type=LoadBalancer,credentials.service.annotations.a=b",
        "--set=networkPolicy.credentialsFrom[0].podSelector.matchLabels.a=b,networkPolicy.fleetFrom[0].ipBlock.cidr=192.0.2.0/24",
    ],
];

/// The plain manifests, and how each is made.
const PLAIN: &[(&str, &[&str])] = &[
    ("daemonset.yaml", &[]),
    ("daemonset-fleet.yaml", &["FOR-A-FLEET"]),
    ("deployment.yaml", &["FOR-A-DEPLOYMENT"]),
    ("podmonitor.yaml", &["--set=podMonitor.enabled=true", "--show-only=templates/podmonitor.yaml"]),
];
const PLAIN_HEAD: &str = "# Made from packaging/helm/turnstone: edit that, and run TURNSTONE_WRITE_MANIFESTS=1 cargo test --test kubernetes\n\
                          # docs/kubernetes.md says what to change here before it is applied: the image, and what your network needs.\n";
/// What every key of the credentials API has.
const A_KEY: &str = "--set-string=credentials.keys[0].id=a,credentials.keys[0].sha256=0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn the_plain_manifests_are_what_the_chart_makes() {
    let is_written = std::env::var_os("TURNSTONE_WRITE_MANIFESTS").is_some();
    for (name, arguments) in PLAIN {
        let Some(made) = render(arguments) else { return };
        let made = format!("{PLAIN_HEAD}{made}");
        let path = Path::new(SOURCES).join("packaging/kubernetes").join(name);
        if is_written {
            std::fs::write(&path, &made).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(there, made, "{name}: run TURNSTONE_WRITE_MANIFESTS=1 cargo test --test kubernetes");
    }
}

#[test]
fn kubernetes_takes_every_shape_of_the_chart_in_each_version_and_refuses_a_misspelt_field() {
    let folder = tempfile::tempdir().unwrap();
    for (number, shape) in SHAPES.iter().enumerate() {
        let Some(manifests) = render(shape) else { return };
        let monitors: Vec<_> = documents(&manifests).into_iter().filter(|each| each["kind"] == "PodMonitor").collect();
        assert_eq!(monitors.len(), usize::from(number == 1), "{shape:?}");
        monitors.iter().for_each(judge_monitor);
        let path = folder.path().join(format!("{number}.yaml"));
        // Kubernetes has no schema of the Prometheus operator's kinds.
        let others: Vec<_> = documents(&manifests).into_iter().filter(|each| each["kind"] != "PodMonitor").collect();
        let text: Vec<_> = others.iter().map(Value::to_string).collect();
        std::fs::write(&path, text.join("\n---\n")).unwrap();
        for version in VERSIONS {
            let finished = validate(&path, version);
            assert_eq!(finished.code, Some(0), "{shape:?} in {version}: {}", finished.all_output());
            let (said, short) = (finished.all_output(), version.trim_end_matches(".0"));
            assert_eq!(
                said.matches(&format!("version {short}")).count(),
                others.len(),
                "{shape:?} in {version}: {said}"
            );
        }
    }
    let path = folder.path().join("misspelt.yaml");
    std::fs::write(&path, render(&[]).unwrap().replace("hostNetwork", "hostNetwrok")).unwrap();
    assert_ne!(validate(&path, VERSIONS[0]).code, Some(0), "anything is taken");
}

/// Every field of a PodMonitor that we write, as the operator's reference has them.
fn judge_monitor(monitor: &Value) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(keys(&monitor["spec"]), ["jobLabel", "podMetricsEndpoints", "selector"]);
    // Rules for another job would wake nobody.
    let job = &monitor["metadata"]["labels"][monitor["spec"]["jobLabel"].as_str().unwrap()];
    assert_eq!(monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"], *job, "not a label of the pods");
    let alerts = std::fs::read_to_string(Path::new(SOURCES).join("docs/alerts.yml")).unwrap();
    let jobs: Vec<_> = alerts.split("job=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(jobs.len() > 5 && jobs.iter().all(|of_rule| of_rule == job), "{jobs:?} are not {job}");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(keys(endpoint), ["interval", "path", "port", "relabelings"]);
    assert_eq!(keys(&endpoint["relabelings"][0]), ["sourceLabels", "targetLabel"]);
}

#[test]
fn helm_finds_nothing_wrong_with_the_chart_and_its_version_is_that_of_the_program() {
    for values in [&[][..], &["FOR-A-DEPLOYMENT"], &["FOR-A-FLEET"]] {
        let Some(finished) = helm(&[&["lint", "--strict", "CHART"], values].concat()) else { return };
        assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    }
    let chart = std::fs::read_to_string(Path::new(SOURCES).join("packaging/helm/turnstone/Chart.yaml")).unwrap();
    for key in ["version", "appVersion"] {
        assert_eq!(documents(&chart)[0][key], env!("CARGO_PKG_VERSION"), "{key}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_what_to_do() {
    for (values, said) in [
        (&["--set=image.rep=x"][..], "additional properties 'rep' not allowed"),
        (&["--set=kind=StatefulSet"], "/kind"),
        (&["--set=drain.seconds=0"], "/drain/seconds"),
        (&["--set=listeners={3478}"], "/listeners/0"),
        (&["--set-string=env.QUOTA=1"], "QUOTA"),
        (&["--set=env.TURNSTONE_DRAIN_DEADLINE=2h"], "TURNSTONE_DRAIN_DEADLINE comes of a value already"),
        (&["--set=env.TURNSTONE_SECRET=a"], "name that in secret or secretFiles"),
        (&["--set=env.TURNSTONE_USERS=a:b"], "name that in secret or secretFiles"),
        (&["--set=secretFiles={a,a}"], "/secretFiles"),
        (&["--set=secret.keys={}"], "/secret/keys"),
        (&["--set=secret.keys={a,a}"], "/secret/keys"),
        (&["--set=secret.keys={a/b}"], "/secret/keys/0"),
        (&["--set=store.url=redis://a,store.urlSecret=b"], "set one of them"),
        (&["--set=store.passwordSecret=b"], "set url or urlSecret"),
        (&["--set=listeners={tls://*:443}"], "set tls.secretName"),
        (&["--set=networkPolicy.enabled=true"], "use the firewall of the nodes"),
        (&["--set=fleet.enabled=true"], "set tls.secretName or tls.insideSecretName"),
        (&["--set=fleet.caSecret=a"], "for a fleet: set enabled"),
        (&[A_KEY], "set credentials.enabled"),
        (&[A_KEY, "--set=credentials.enabled=true"], "or plainHttp where the cluster's network is safe"),
        (
            &["--set=credentials.enabled=true,credentials.plainHttp=true"],
            "put what \"turnstone credentials key\" prints there",
        ),
        (&[A_KEY, "--set-string=credentials.keys[0].sha256=tsk_0"], "/credentials/keys/0/sha256"),
        (&[A_KEY, "--set=credentials.keys[0].ttl=1h"], "additional properties 'ttl' not allowed"),
        (
            &["FOR-A-DEPLOYMENT", A_KEY, "--set=credentials.enabled=true,credentials.plainHttp=true"],
            "set publicHost to the load balancer's name",
        ),
        (
            &[
                "FOR-A-DEPLOYMENT",
                A_KEY,
                "--set=credentials.enabled=true,credentials.plainHttp=true,publicHost=turn.example.org",
            ],
            "say who may",
        ),
        (&["--set=kind=Deployment"], "set mode to sfu"),
        (&["FOR-A-DEPLOYMENT", "--set=listeners=null"], "a Deployment needs them"),
        (&["FOR-A-DEPLOYMENT", "--set=relay.ports=shared:3480-3480"], "set replicas to 1"),
        (&["FOR-A-DEPLOYMENT", "--set=relay.ports=shared:3480-3480,replicas=1"], "the address of the load balancer"),
    ] {
        let Some(finished) = helm(&[&["template", "turnstone", "CHART"], values].concat()) else { return };
        assert_ne!(finished.code, Some(0), "{values:?}");
        assert!(finished.stderr.contains(said), "{values:?}: {}", finished.stderr);
    }
}

#[test]
fn what_the_page_shows_for_a_file_of_values_is_taken() {
    let values: Vec<_> =
        blocks_of_the_page("yaml").into_iter().filter(|block| !block.starts_with("apiVersion")).collect();
    assert!(values.len() >= 3, "{values:?}");
    let folder = tempfile::tempdir().unwrap();
    for (number, block) in values.iter().enumerate() {
        let path = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&path, block).unwrap();
        let Some(manifests) = render(&["--values", path.to_str().unwrap()]) else { return };
        assert_ne!(manifests, render(&[]).unwrap(), "it changes nothing: {block}");
    }
}

#[test]
fn alerts_get_into_the_cluster_by_the_command_of_the_page() {
    let blocks = blocks_of_the_page("");
    let command = blocks.iter().find(|block| block.contains("PrometheusRule")).unwrap();
    let command = command.trim_end().strip_suffix("|\n    kubectl -n turnstone apply -f -").unwrap();
    if helm(&["version"]).is_none() {
        return;
    }
    let made = run(Command::new("sh").args(["-ec", command]).current_dir(SOURCES), LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.all_output());
    let rule = &documents(&made.stdout)[0];
    let alerts = &documents(&std::fs::read_to_string(Path::new(SOURCES).join("docs/alerts.yml")).unwrap())[0];
    assert_eq!((&rule["kind"], &rule["spec"]), (&Value::from("PrometheusRule"), alerts));
}

#[test]
fn a_secret_is_in_a_file_or_comes_from_a_secret_and_stands_in_no_manifest() {
    let values = "--set=secret.keys={secret,other},nonceKey.secretName=nonces,store.urlSecret=store,store.passwordSecret=store,store.caSecret=ca";
    let Some(manifests) = render(&["FOR-A-FLEET", "--set=tls.secretName=turn-tls", values]) else { return };
    let documents = documents(&manifests);
    let spec = &documents.iter().find(|each| each["kind"] == "DaemonSet").unwrap()["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let volumes = spec["volumes"].as_array().unwrap();
    let mounts = container["volumeMounts"].as_array().unwrap();
    // Where each file of each Secret is.
    let mut files = Vec::new();
    for volume in volumes.iter().filter(|volume| volume["secret"].is_object()) {
        assert_eq!(volume["secret"]["defaultMode"], 0o440, "{volume}");
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
        let folder = mount["mountPath"].as_str().unwrap();
        let items = volume["secret"]["items"].as_array().unwrap_or_else(|| panic!("all of it is shown: {volume}"));
        files.extend(items.iter().map(|item| format!("{folder}/{}", item["path"].as_str().unwrap())));
    }
    let map = documents.iter().find(|each| each["kind"] == "ConfigMap").unwrap();
    let config = map["data"]["turnserver.toml"].as_str().unwrap();
    let env = container["env"].as_array().unwrap();
    let named = env.iter().filter_map(|each| each["value"].as_str()).chain(config.split('"'));
    let named: Vec<_> = named.filter(|text| text.starts_with("/run/secrets/")).collect();
    assert_eq!(named.len(), 11, "{named:?}");
    assert!(named.iter().all(|file| files.iter().any(|there| there == file)), "{named:?} in {files:?}");
    assert_eq!(named.len(), files.len(), "{files:?}");
    let url = env.iter().find(|each| each["name"] == "TURNSTONE_STORE_URL").unwrap();
    assert_eq!(url["valueFrom"]["secretKeyRef"], serde_json::json!({ "name": "store", "key": "url" }));
    // The one that is set by a variable would take the place of all.
    assert!(env.iter().all(|each| each["name"] != "TURNSTONE_SECRET_FILE"));
}

/// The ports of a pod and what leads to them: a misspelt name would lead nowhere, and nobody would say so.
#[test]
fn the_fleet_and_the_credentials_api_are_reached_by_their_own_services_and_by_nobody_whom_the_policy_does_not_name() {
    let Some(manifests) = render(SHAPES[SHAPES.len() - 1]) else { return };
    let documents = documents(&manifests);
    let of_kind = |kind: &str| documents.iter().filter(move |each| each["kind"] == kind).collect::<Vec<_>>();
    let container = &of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let port_of = |name: &str| {
        let ports = container["ports"].as_array().unwrap();
        ports.iter().find(|port| port["name"] == name).unwrap_or_else(|| panic!("no port {name}"))["containerPort"]
            .clone()
    };
    let services = of_kind("Service");
    let by_name = |name: &str| services.iter().find(|each| each["metadata"]["name"] == name).unwrap();
    for (service, name, port) in [("turnstone-fleet", "fleet", 9640), ("turnstone-credentials", "credentials", 9643)] {
        let ports = by_name(service)["spec"]["ports"].as_array().unwrap();
        assert_eq!((ports.len(), &ports[0]["targetPort"]), (1, &Value::from(name)), "{service}");
        assert_eq!(port_of(name), port);
    }
    // The balancer that everybody reaches has neither.
    let outside = by_name("turnstone")["spec"]["ports"].to_string();
    assert!(!outside.contains("9640") && !outside.contains("9643") && outside.contains("3478"), "{outside}");
    let rules = of_kind("NetworkPolicy")[0]["spec"]["ingress"].as_array().unwrap().clone();
    for port in [9640, 9641, 9643] {
        let of_port: Vec<_> = rules.iter().filter(|rule| rule["ports"][0]["port"] == port).collect();
        assert_eq!(of_port.len(), 1, "{port}");
        assert!(of_port[0]["from"].as_array().is_some_and(|from| !from.is_empty()), "{port}: {}", of_port[0]);
    }
    let labels = &of_kind("Deployment")[0]["spec"]["template"]["metadata"]["labels"];
    let of_fleet = rules.iter().find(|rule| rule["ports"][0]["port"] == 9640).unwrap();
    assert_eq!(&of_fleet["from"][0]["podSelector"]["matchLabels"], labels);
}

#[test]
fn every_value_is_in_the_schema_and_the_schema_has_no_other() {
    let folder = Path::new(SOURCES).join("packaging/helm/turnstone");
    if helm(&["version"]).is_none() {
        return;
    }
    let schema = serde_json::from_str(&std::fs::read_to_string(folder.join("values.schema.json")).unwrap()).unwrap();
    let values = &documents(&std::fs::read_to_string(folder.join("values.yaml")).unwrap())[0];
    compare(&schema, values, "");
}

fn compare(schema: &Value, values: &Value, place: &str) {
    let Some(properties) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "{place}");
    let in_schema: Vec<_> = properties.keys().filter(|key| *key != "global").collect();
    assert_eq!(in_schema, values.as_object().unwrap().keys().collect::<Vec<_>>(), "{place}");
    for key in in_schema {
        compare(&properties[key], &values[key], &format!("{place}/{key}"));
    }
}
