use super::*;

fn compile(rules: &PeerRules) -> PeerAcl {
    PeerAcl::compile(rules).unwrap()
}

fn list(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

fn judge_ip(acl: &PeerAcl, ip: &str) -> Result<Verdict, Reason> {
    acl.judge_ip(ip.parse().unwrap())
}

fn judge(acl: &PeerAcl, peer: &str) -> Result<Verdict, Reason> {
    acl.judge(PeerAddr::new(peer.parse().unwrap()).unwrap())
}

#[test]
fn public_peers_are_reachable_and_private_ones_are_not() {
    let acl = compile(&PeerRules::default());
    for public in ["8.8.8.8", "192.31.196.1", "2001:4860:4860::8888", "2620:4f:8000::1"] {
        assert_eq!(judge_ip(&acl, public), Ok(Verdict::Peer), "{public}");
    }
    for private in ["10.1.2.3", "169.254.169.254", "fd00:ec2::254", "fe80::1", "::", "::1", "2002:808:808::1"] {
        assert_eq!(judge_ip(&acl, private), Err(Reason::PeerDeniedByDefault), "{private}");
    }
    for form in ["::ffff:8.8.8.8", "::8.8.8.8", "::ffff:0:8.8.8.8"] {
        assert_eq!(judge_ip(&acl, form), Err(Reason::PeerForm), "{form}");
    }
}
