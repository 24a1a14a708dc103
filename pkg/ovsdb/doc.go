// Package ovsdb is a client of the Open vSwitch Database Management Protocol
// (RFC 7047): connect, transact with the result of every operation, monitor.
//
// It is small on purpose. ovn-kubernetes/libovsdb v0.8.1, the maintained
// library, was measured against it: a program that lists the bridges is
// 11.5 MB and links 26 third-party modules (a Prometheus client, protobuf,
// a validator, testify), and its typed models leave no way to save and
// restore rows of tables that nobody has modelled, which a rollback needs.
//
// What it guarantees: a call ends with its context or with the connection; a
// message is at most MaxMessage bytes; an operation that fails inside a
// transaction is an error, although the server's answer to the transaction
// itself is not; the server's echo is answered, so that an idle monitor stays
// connected.
package ovsdb
