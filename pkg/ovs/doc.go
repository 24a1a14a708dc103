// Package ovs brings Open vSwitch to a desired state and keeps it there: it
// reads the desired state (Config), reads what the database holds (State),
// says how they differ (Plan), applies the difference in one transaction that
// is guarded by what the plan read, and judges the outcome by what the switch
// writes back. A Checkpoint holds what a rollback needs.
//
// Every row that it makes carries the owner tag external_ids:gb-owner; only
// such rows are ever removed. Rows of others are reported.
package ovs
