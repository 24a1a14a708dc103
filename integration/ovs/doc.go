// Package ovs tests gb-ovs-setup against a real Open vSwitch.
package ovs
