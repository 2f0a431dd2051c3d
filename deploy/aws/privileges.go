package aws

import (
	"bytes"
	_ "embed"
	"fmt"

	"gopkg.in/yaml.v3"
)

//go:embed privileges.yaml
var privilegesYAML []byte

// Privileges are the actions that roles may call.
type Privileges struct {
	// Start is what ECS starts any component with.
	Start []string `yaml:"start"`
	// Keepers are what fleet does in a tenant's stores, by the role that it does it as.
	Keepers map[string][]string `yaml:"keepers"`
	// Tasks is what each component's task calls AWS as, by blueprint and component.
	Tasks map[string]map[string][]string `yaml:"tasks"`
}

// ReadPrivileges reads what is written down of them.
func ReadPrivileges() (*Privileges, error) {
	dec := yaml.NewDecoder(bytes.NewReader(privilegesYAML))
	dec.KnownFields(true)
	var p Privileges
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("read the privileges: %w", err)
	}
	return &p, nil
}
