# debian-source.sh (sourced): Debian's source package NAME, unpacked as DIR/src. The lists are an apt's of their own: the
# system's stay as they are.

debian_source() {
    local name=$1 dir=$2 apt=$2/apt options mirror
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    mirror=$({ cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true; } |
        sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' | head -1)
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >"$apt/sources.list"
    options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache")
    apt-get "${options[@]}" update -q
    (cd "$dir" && apt-get "${options[@]}" source -q --download-only "$name" && rm -rf src && dpkg-source -x "$name"_*.dsc src)
}
