#!/bin/sh
# Installs Turnstone as a systemd service, or takes it away again.
#
#   systemd/install.sh [install]      after: cargo build --release
#   systemd/install.sh uninstall      leaves /etc/turnstone alone
#   systemd/install.sh generate       writes manual pages and completions to target/, for `cargo deb`
#
# PREFIX      where the program goes (default /usr/local)
# SYSCONFDIR  where the configuration goes (default /etc)
# DESTDIR     put in front of every path, for packages; then nothing is started, and no user is made
# BINARY      the program to install (default target/release/turnstone)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
prefix=${PREFIX:-/usr/local}
sysconfdir=${SYSCONFDIR:-/etc}
destdir=${DESTDIR:-}
binary=${BINARY:-$top/target/release/turnstone}

program=$destdir$prefix/bin/turnstone
config=$destdir$sysconfdir/turnstone
unit=$destdir/usr/lib/systemd/system/turnstone.service
sysusers=$destdir/usr/lib/sysusers.d/turnstone.conf
tmpfiles=$destdir/usr/lib/tmpfiles.d/turnstone.conf
manuals=$destdir$prefix/share/man/man1
file_manual=$destdir$prefix/share/man/man5/turnserver.toml.5
bash_completion=$destdir$prefix/share/bash-completion/completions/turnstone
zsh_completion=$destdir$prefix/share/zsh/site-functions/_turnstone
fish_completion=$destdir$prefix/share/fish/vendor_completions.d/turnstone.fish
renewal_hook=$destdir$prefix/share/turnstone/certbot-deploy-hook
documents=$destdir$prefix/share/doc/turnstone
fail2ban_filter=$destdir$prefix/share/turnstone/fail2ban.conf

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

# put MODE FILE TARGET: writes a file through the paths of this installation.
put() {
    mkdir -p "$(dirname "$3")"
    sed -e "s|/usr/bin/turnstone|$prefix/bin/turnstone|g" -e "s|/etc/turnstone|$sysconfdir/turnstone|g" "$2" >"$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

# make MODE TARGET COMMAND...: a file with what the command prints.
make() {
    mode=$1 target=$2
    shift 2
    mkdir -p "$(dirname "$target")"
    "$@" >"$target.new" || { rm -f "$target.new"; fail "$* failed"; }
    chmod "$mode" "$target.new"
    mv -f "$target.new" "$target"
}

# commands_of [COMMAND]: the commands that the program's help, or that of a command, lists.
commands_of() {
    "$binary" "$@" --help | awk '/^Commands:/ { listed = 1; next } /^$/ { listed = 0 } listed && /^  [a-z]/ && $1 != "help" { print $1 }'
}

# generate MANUALS FILE_MANUAL BASH ZSH FISH: manual pages into a folder, that of turnserver.toml, completions into three files.
generate() {
    make 0644 "$1/turnstone.1" "$binary" man
    for command in $(commands_of); do
        make 0644 "$1/turnstone-$command.1" "$binary" man "$command"
        for below in $(commands_of "$command"); do
            make 0644 "$1/turnstone-$command-$below.1" "$binary" man "$command" "$below"
        done
    done
    make 0644 "$2" "$binary" man turnserver.toml
    shift
    make 0644 "$2" "$binary" completions bash
    make 0644 "$3" "$binary" completions zsh
    make 0644 "$4" "$binary" completions fish
}

generate_for_package() {
    out=${CARGO_TARGET_DIR:-$top/target}
    generate "$out/man" "$out/man/turnserver.toml.5" "$out/completions/turnstone.bash" "$out/completions/_turnstone" "$out/completions/turnstone.fish"
}

install_all() {
    if [ -z "$destdir" ] && [ "$(id -u)" != 0 ]; then
        fail "needs root: run it with sudo"
    fi

    is_upgrade=
    if [ -e "$program" ] && [ -e "$unit" ]; then
        is_upgrade=yes
    fi
    mkdir -p "$(dirname "$program")"
    # A new file, so that a running server keeps the program it was started from.
    install -m 0755 "$binary" "$program.new"
    mv -f "$program.new" "$program"
    put 0644 "$here/turnstone.service" "$unit"
    put 0644 "$here/sysusers.d/turnstone.conf" "$sysusers"
    put 0644 "$here/tmpfiles.d/turnstone.conf" "$tmpfiles"
    put 0755 "$here/certbot-deploy-hook" "$renewal_hook"
    put 0644 "$here/fail2ban/turnstone.conf" "$fail2ban_filter"
    for document in $(cd "$top" && ls *.md LICENSE-* turnserver.toml docs/*.md docs/*.json docs/benchmarks/*.svg); do
        put 0644 "$top/$document" "$documents/$document"
    done
    generate "$manuals" "$file_manual" "$bash_completion" "$zsh_completion" "$fish_completion"

    # The administrator's files: made once, never written over.
    mkdir -p "$config/tls"
    chmod 0750 "$config" "$config/tls"
    if [ -e "$config/turnserver.toml" ]; then
        say "kept $config/turnserver.toml"
    else
        put 0640 "$top/turnserver.toml" "$config/turnserver.toml"
    fi
    if [ -e "$config/secret" ]; then
        say "kept $config/secret"
    else
        (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$config/secret")
        chmod 0600 "$config/secret"
        say "made $config/secret, the secret that time-limited credentials are made with"
    fi

    if [ -z "$destdir" ]; then
        systemd-sysusers "$sysusers"
        systemd-tmpfiles --create "$tmpfiles"
        # In a container or an image there is no service manager to tell.
        if [ -d /run/systemd/system ]; then
            systemctl daemon-reload
        fi
        say_what_next
    fi
}

say_what_next() {
    if [ -d /run/systemd/system ] && systemctl is-active --quiet turnstone; then
        say "The old program still runs. To change over to the new one: systemctl restart turnstone"
        say "The listeners stay open meanwhile. Allocations end, unless [drain] in turnserver.toml gives them time."
    elif [ -n "$is_upgrade" ]; then
        say "Upgraded; the server does not run. To start it: systemctl enable --now turnstone"
    else
        say "Edit $config/turnserver.toml, then: systemctl enable --now turnstone"
    fi
}

uninstall_all() {
    if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
        systemctl disable --now turnstone 2>/dev/null || true
    fi
    rm -f "$program" "$unit" "$sysusers" "$tmpfiles" "$renewal_hook" "$fail2ban_filter"
    rm -f "$manuals"/turnstone.1 "$manuals"/turnstone-*.1 "$file_manual" "$bash_completion" "$zsh_completion" "$fish_completion"
    rm -rf "$documents"
    rmdir "$(dirname "$renewal_hook")" 2>/dev/null || true
    if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
    if [ -d "$config" ]; then
        say "left $config, with the configuration and the secret"
    fi
}

if [ "${1:-install}" != uninstall ] && [ ! -x "$binary" ]; then
    fail "$binary is missing: run cargo build --release, or set BINARY"
fi
case ${1:-install} in
    install) install_all ;;
    generate) generate_for_package ;;
    uninstall) uninstall_all ;;
    *) fail "usage: install.sh [install|uninstall|generate]" ;;
esac
