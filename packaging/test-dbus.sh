#!/bin/sh
exec opdbus doctor --dbus "$@"
