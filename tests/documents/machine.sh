# What is set up in a machine of these tests before systemd starts: a Debian without Turnstone, on a small Internet of its own.
set -eu
rm -rf /etc/turnstone /usr/local/bin/turnstone /etc/letsencrypt /var/lib/turnstone
mkdir -p /usr/local/sbin
for stand_in in apt-get cargo certbot docker git ssh sudo sudoedit; do
    install -m 0755 "/run/source/tests/documents/standins/$stand_in" /usr/local/sbin/
done
: >/etc/machine-id
hostname turn

# Its one cable leads to a cloud, which has a private address for it and maps a public one to that; from there it is tried.
mkdir -p /run/netns
ip netns add outside
ip -n outside link set lo up
ip link set lo up
ip link add eth0 type veth peer name eth0 netns outside
ip -n outside address add 5.44.1.1/32 dev lo
ip -n outside address add 10.0.0.1/24 dev eth0
ip -n outside link set eth0 up
ip -n outside route add 5.44.9.1 via 10.0.0.5 src 5.44.1.1
ip netns exec outside nft -f - <<'END'
table ip cloud {
    chain from_outside { type nat hook output priority -100; ip daddr 5.44.9.1 dnat to 10.0.0.5; }
    chain to_outside { type nat hook input priority 100; ip saddr 10.0.0.5 snat to 5.44.9.1; }
}
END
ip address add 10.0.0.5/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.0.1
# What DNS says, inside and outside.
printf '127.0.0.1 localhost\n5.44.9.1 turn.example.org turn.a.example turn.b.example\n5.44.1.1 acme-v02.api.letsencrypt.org\n' >/etc/hosts
: >/etc/resolv.conf
ip netns exec outside sh /run/source/tests/documents/standins/letsencrypt

# As on a host whose firewall is on, so that what is not opened stays closed.
ufw --force reset >/dev/null
ufw --force enable >/dev/null
