// Package peers has the programs of integration/bench that need libraries which
// the product does not: it is a module of its own, so that the product does not
// depend on them.
package peers
