# What buildGoModule and installShellFiles need of nixpkgs' stdenv.
runHook() { eval "${!1:-}"; }
concatStringsSep() { echo "${!2// /$1}"; }
stripHash() { basename "$1" | sed -E 's/^[0-9a-z]{32}-//'; }
nixInfoLog() { :; }
nixWarnLog() { echo "$*" >&2; }
nixErrorLog() { echo "$*" >&2; }
outputBin=out outputMan=out outputDevman=out

export HOME="$TMPDIR"
. "$hooks"
cp -r "$src" source
chmod -R u+w source
cd source
eval "$configurePhase"
eval "$buildPhase"
eval "$installPhase"
