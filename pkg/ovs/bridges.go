package ovs

import "context"

// Bridges returns the names of all bridges of the switch, those of others too,
// sorted.
func (s *Setup) Bridges(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	db, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	state, err := ReadState(ctx, db)
	if err != nil {
		return nil, err
	}
	list := []string{}
	for _, row := range sortedRows(state.Bridges) {
		list = append(list, row.String("name"))
	}
	return list, nil
}

// Flows returns all flows of a bridge, those of others too, as ovs-ofctl(8)
// prints them.
func (s *Setup) Flows(ctx context.Context, bridge string) ([]string, error) {
	all, err := s.Bridges(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		if name == bridge {
			return s.flows().Dump(ctx, bridge)
		}
	}
	return nil, &ConfigError{Reason: "there is no bridge " + bridge}
}
