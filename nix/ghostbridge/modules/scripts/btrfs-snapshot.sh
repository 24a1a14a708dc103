#!/bin/sh
exec gb-snap take --subvolume @blockchain-snapshots --pending /run/ghostbridge/pending /var/lib/blockchain-timing "$@"
