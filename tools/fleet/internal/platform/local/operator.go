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
	"a3os.app/tools/fleet/internal/operator"
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

// HasOperator says whether an operator's key is on this machine.
func (p *Platform) HasOperator(name string) bool {
	_, err := os.Stat(p.served("pki", operatorService(name)))
	return err == nil
}

// AddOperator makes an operator's key and certificate, which are then on this machine, readable by who owns the plane. What is here from before
// they were put on record is of an earlier record, which was removed, and goes.
func (p *Platform) AddOperator(name string, onRecord time.Time) (dir string, changed bool, err error) {
	issuing, err := p.issuing()
	if err != nil {
		return "", false, err
	}
	service := operatorService(name)
	dir = p.served("pki", service)
	source, err := workload.OpenSource(dir, workload.Identity{Plane: p.State.Plane, Service: service})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", false, err
	}
	if err == nil && source.Leaf().NotBefore.Before(onRecord.Add(-backdated)) {
		if err := os.RemoveAll(dir); err != nil {
			return "", false, fmt.Errorf("remove an earlier key of the operator: %w", err)
		}
	}
	changed, err = p.leaf(platform.Set{}, issuing, service, dir, workload.LeafLife)
	return dir, changed, err
}

// backdated is how long before its making a certificate begins, and a minute in which the clocks of this machine and of the registry may differ.
const backdated = 6 * time.Minute

// IssueOperator answers an operator's signing request (PKCS #10, DER) with a certificate, PEM, leaf first.
func (p *Platform) IssueOperator(name string, csrDER []byte, life time.Duration) (chain string, err error) {
	issuing, err := p.issuing()
	if err != nil {
		return "", err
	}
	text, err := issuing.IssueLeafFor(csrDER, workload.Identity{Plane: p.State.Plane, Service: operatorService(name)}, p.Now(), life)
	return string(text), err
}

// ForgetOperator removes an operator's key from this machine, and says whether there was one.
func (p *Platform) ForgetOperator(name string) (bool, error) {
	if name == "" || !settings.OperatorName.MatchString(name) || !p.HasOperator(name) {
		return false, nil
	}
	return true, os.RemoveAll(p.served("pki", operatorService(name)))
}

// issuing is what the plane's own certificates are issued by.
func (p *Platform) issuing() (workload.Authority, error) {
	issuing, err := workload.LoadAuthority(p.pki(platform.Set{}, "issuing.pem"))
	if errors.Is(err, os.ErrNotExist) {
		return issuing, fault.New(fault.FailedPrecondition, "this plane has no authority yet: fleet plane up makes it")
	}
	return issuing, err
}

// worker is the keypair of who works: of the operator whose directory the settings name, or of the one whom they name.
func (p *Platform) worker() (*workload.Source, error) {
	if p.Settings.OperatorDir != "" {
		o, err := operator.Open(p.Settings.OperatorDir)
		if err != nil {
			return nil, err
		}
		if o.Plane != p.State.Plane {
			return nil, fault.New(fault.FailedPrecondition, "A3_OPERATOR_DIR is an operator's of a plane %s, and the plane in %s is %s", o.Plane, p.Settings.Home, p.State.Plane)
		}
		return o.Source, nil
	}
	who := operatorService(p.Settings.Operator)
	source, err := workload.OpenSource(p.served("pki", who), workload.Identity{Plane: p.State.Plane, Service: who})
	if errors.Is(err, os.ErrNotExist) && p.Settings.Operator != "" {
		return nil, fault.New(fault.NotFound, "this machine has no key of an operator %q: see fleet operator list, make one with fleet operator add %s --reason '…', or, where the key is their own, work with A3_OPERATOR_DIR", p.Settings.Operator, p.Settings.Operator)
	}
	return source, err
}
