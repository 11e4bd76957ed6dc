#!/bin/sh
# qctl, with its Python in the archive behind the last line. Needs sh, tail, tar and gzip.
set -eu
cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
if [ -z "$cache" ]; then
  echo "error: there is no folder to unpack qctl into: neither HOME nor XDG_CACHE_HOME is set" >&2
  echo "try: XDG_CACHE_HOME=FOLDER, a folder that no other user can write to" >&2
  exit 1
fi
# Another user who could write here would choose what this user runs.
if [ -e "$cache/qctl" ] && ! [ -O "$cache/qctl" ]; then
  echo "error: $cache/qctl belongs to another user" >&2
  echo "try: XDG_CACHE_HOME=FOLDER, a folder that no other user can write to" >&2
  exit 1
fi
folder=$cache/qctl/@HASH@
if [ ! -e "$folder/qctl" ]; then
  draft=$folder.$$
  if ! { (umask 077 && mkdir -p "$draft") && chmod 700 "$cache/qctl" &&
    tail -n +@LINES@ "$0" | tar -xzf - -C "$draft"; }; then
    rm -rf "$draft"
    echo "error: qctl cannot be unpacked into $folder" >&2
    echo "try: XDG_CACHE_HOME=FOLDER, with 100 MB free" >&2
    exit 1
  fi
  # If another start was first, its folder stays.
  mv -T "$draft" "$folder" 2>/dev/null || rm -rf "$draft"
fi
exec "$folder/qctl" "$@"
