#!/bin/sh
exec gb-chain query "$@"
