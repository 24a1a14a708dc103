#!/bin/sh
exec gb-ovs-setup status --exit-code "$@"
