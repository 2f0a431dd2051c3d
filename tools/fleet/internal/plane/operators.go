package plane

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/operator"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/supervise"
)

// OperatorState is where an operator's record stands.
type OperatorState string

// States of operators.
const (
	OperatorActive  OperatorState = "active"
	OperatorPending OperatorState = "pending"
	OperatorRemoved OperatorState = "removed"
)

// StateOf is where a record stands.
func StateOf(o *registryv1.Operator) OperatorState {
	switch {
	case o.GetRemovedAt() != nil:
		return OperatorRemoved
	case o.GetConfirmedAt() == nil:
		return OperatorPending
	}
	return OperatorActive
}

// Operator is an operator as the registry has them on record, and what this machine knows of them.
type Operator struct {
	// Record; nil for the plane's first operator, who has none.
	Record *registryv1.Operator
	// Until is when the certificate ends, where it is on this machine; zero elsewhere.
	Until time.Time
}

// Operators are all that ever were, the newest record first, after the plane's first operator where the plane is here.
func (p *Plane) Operators(ctx context.Context) ([]Operator, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	records, err := pages.All(ctx, registryv1.NewOperatorServiceClient(conn).ListOperators, &registryv1.ListOperatorsRequest{}, (*registryv1.ListOperatorsResponse).GetOperators)
	if err != nil {
		return nil, err
	}
	var all []Operator
	until, own := map[string]time.Time{}, map[string]time.Time{}
	if !p.away() {
		here, err := p.platform.Operators()
		if err != nil {
			return nil, err
		}
		for _, o := range here {
			until[o.Name] = o.Expires
		}
		all = append(all, Operator{Until: until[""]})
	}
	if p.Settings.OperatorDir != "" {
		o, err := operator.Open(p.Settings.OperatorDir)
		if err != nil {
			return nil, err
		}
		own[o.Fingerprint] = o.Source.NotAfter()
	}
	for _, r := range records {
		o := Operator{Record: r}
		switch {
		case r.GetRemovedAt() != nil:
		case r.GetOwnKey():
			o.Until = own[r.GetKeyFingerprint()]
		default:
			o.Until = until[r.GetName()]
		}
		all = append(all, o)
	}
	return all, nil
}

// AddedOperator is what was made of an operator.
type AddedOperator struct {
	// Record as the registry has it, and Added whether it was made now.
	Record *registryv1.Operator
	Added  bool
	// Dir has the key and the certificate, where this machine holds them, and Made says whether they were made now.
	Dir  string
	Made bool
	// Bundle is for an operator whose key is their own.
	Bundle operator.Bundle
}

// AddOperator puts an operator on record, then makes what they work with: a certificate over the key of their request, or a key of this
// machine's. In that order, so that a command that was killed between the two is repeated and nobody has a certificate who is on no record.
func (p *Plane) AddOperator(ctx context.Context, name, reason string, request *operator.Request, life time.Duration) (*AddedOperator, error) {
	if !settings.OperatorName.MatchString(name) {
		return nil, fault.New(fault.InvalidArgument, "%q can't be an operator's name: 1 to 23 lower-case letters, digits and hyphens, a letter or a digit first and last", name)
	}
	if request != nil && request.Name != name {
		return nil, fault.New(fault.InvalidArgument, "the request is operator %s's, and not %s's", request.Name, name)
	}
	if p.away() {
		return nil, p.whyNot(supervise.ErrNotRunning)
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if p.Settings.Operator == name {
		p.Settings.Operator = "" // who is to be one can't say so yet
	}
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	req := &registryv1.AddOperatorRequest{Name: name, Reason: reason}
	if request != nil {
		req.KeyFingerprint = request.Fingerprint
	}
	res, err := registryv1.NewOperatorWriteServiceClient(conn).AddOperator(ctx, req)
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	out := &AddedOperator{Record: res.GetOperator(), Added: res.GetAdded()}
	if request == nil {
		out.Dir, out.Made, err = p.platform.AddOperator(name, out.Record.GetAddedAt().AsTime())
		return out, err
	}
	return out, p.bundle(out, request, life)
}

// bundle issues a certificate over the key of a request.
func (p *Plane) bundle(out *AddedOperator, request *operator.Request, life time.Duration) error {
	roots, err := p.platform.Roots(p.own)
	if err != nil {
		return err
	}
	address, err := p.platform.Address(p.own, registryComponent, "api")
	if err != nil {
		return err
	}
	chain, err := p.platform.IssueOperator(request.Name, request.DER, life)
	out.Bundle = operator.Bundle{Plane: p.state.Plane, Name: request.Name, Registry: address, Service: registryComponent, Roots: string(roots), Certificates: chain}
	return err
}

// ConfirmOperator gives another operator's word for somebody who was added. Where their key is their own, key is what they themselves say of
// it, the beginning of its fingerprint at least: whoever added them could have put another on record.
func (p *Plane) ConfirmOperator(ctx context.Context, name, key, reason string) (*registryv1.Operator, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	record, err := present(ctx, conn, name)
	if err != nil {
		return nil, err
	}
	const least = 16
	own := record.GetKeyFingerprint()
	switch {
	case own != "" && key == "":
		return nil, fault.New(fault.InvalidArgument, "ask %s for the fingerprint of their key, which fleet operator request prints, and give it with --key: %s is on record, and who added them could have put another there", name, own)
	case !strings.HasPrefix(own, key) || own != "" && len(key) < least:
		return nil, fault.New(fault.FailedPrecondition, "the key of %s on record has the fingerprint %q, and --key is %q: it is that, or its first %d digits or more", name, own, key, least)
	}
	res, err := registryv1.NewOperatorWriteServiceClient(conn).ConfirmOperator(ctx, &registryv1.ConfirmOperatorRequest{Name: name, KeyFingerprint: own, Reason: reason})
	return res.GetOperator(), fault.FromRPC(err)
}

// present is the record of an operator who was not removed.
func present(ctx context.Context, conn *grpc.ClientConn, name string) (*registryv1.Operator, error) {
	list := registryv1.NewOperatorServiceClient(conn).ListOperators
	for o, err := range pages.Each(ctx, list, &registryv1.ListOperatorsRequest{}, (*registryv1.ListOperatorsResponse).GetOperators) {
		if err != nil {
			return nil, err
		}
		if o.GetName() == name && o.GetRemovedAt() == nil {
			return o, nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no operator %q: see fleet operator list", name)
}

// RemoveOperator ends what an operator may, and removes their key from this machine where it has one.
func (p *Plane) RemoveOperator(ctx context.Context, name, reason string) (*registryv1.Operator, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := registryv1.NewOperatorWriteServiceClient(conn).RemoveOperator(ctx, &registryv1.RemoveOperatorRequest{Name: name, Reason: reason})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	if p.away() {
		return res.GetOperator(), nil
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, err = p.platform.ForgetOperator(name)
	return res.GetOperator(), err
}
