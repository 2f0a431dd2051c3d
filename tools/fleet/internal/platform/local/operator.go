package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/settings"
)

// operatorService is the service of an operator's certificate; without a name the plane's first.
func operatorService(name string) string {
	if name == "" {
		return workload.Operator
	}
	return workload.OperatorPrefix + name
}

// Operator is somebody whom the registry knows as an operator.
type Operator struct {
	// Name; empty is the plane's first.
	Name string
	// Identity in the certificate, which is who did something on every record.
	Identity string
	// Expires is when the certificate ends that is on this machine.
	Expires time.Time
}

// Operators are those whose certificates are on this machine, the first before those with names.
func (p *Platform) Operators() ([]Operator, error) {
	names, err := p.operatorNames()
	if err != nil {
		return nil, err
	}
	var all []Operator
	for _, name := range names {
		who := workload.Identity{Plane: p.State.Plane, Service: operatorService(name)}
		source, err := workload.OpenSource(p.served("pki", who.Service), who)
		if err != nil {
			return nil, err
		}
		all = append(all, Operator{Name: name, Identity: who.String(), Expires: source.NotAfter()})
	}
	return all, nil
}

// operatorNames are the names on this machine; the first operator's is empty, and comes first.
func (p *Platform) operatorNames() ([]string, error) {
	dirs, err := filepath.Glob(p.served("pki", workload.OperatorPrefix+"*"))
	if err != nil {
		return nil, err
	}
	names := []string{""}
	for _, dir := range dirs {
		names = append(names, strings.TrimPrefix(filepath.Base(dir), workload.OperatorPrefix))
	}
	return names, nil
}

// operators makes the plane's first operator, and renews all that there are.
func (p *Platform) operators(plane platform.Set, issuing workload.Authority) (changed bool, err error) {
	names, err := p.operatorNames()
	if err != nil {
		return false, err
	}
	for _, name := range names {
		did, err := p.leaf(plane, issuing, operatorService(name), p.served("pki", operatorService(name)), workload.LeafLife)
		if err != nil {
			return changed, fmt.Errorf("operator %q: %w", name, err)
		}
		changed = changed || did
	}
	return changed, nil
}

// AddOperator makes an operator, whose key and certificate are then on this machine, readable by who owns the plane.
func (p *Platform) AddOperator(name string) (dir string, changed bool, err error) {
	if !settings.OperatorName.MatchString(name) {
		return "", false, fault.New(fault.InvalidArgument, "%q can't be an operator's name: 1 to 23 lower-case letters, digits and hyphens, a letter or a digit first and last", name)
	}
	issuing, err := workload.LoadAuthority(p.pki(platform.Set{}, "issuing.pem"))
	if errors.Is(err, os.ErrNotExist) {
		return "", false, fault.New(fault.FailedPrecondition, "this plane has no authority yet: fleet plane up makes it")
	}
	if err != nil {
		return "", false, err
	}
	dir = p.served("pki", operatorService(name))
	changed, err = p.leaf(platform.Set{}, issuing, operatorService(name), dir, workload.LeafLife)
	return dir, changed, err
}
