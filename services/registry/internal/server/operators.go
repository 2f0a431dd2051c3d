package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/page"
	"a3os.app/libs/rpc"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/store"
)

var (
	errNoOperator = fault.Declare(fault.NotFound, "NO_OPERATOR", "there is no such operator: see fleet operator list")
	// errNotAdmitted is an operator's certificate that is good, of somebody who is no operator. What it says is of the caller alone.
	errNotAdmitted = fault.Declare(fault.PermissionDenied, "OPERATOR_NOT_ADMITTED", "the certificate's name is not that of an operator of this plane")
	// errNotOwnKey is a word that takes a key which the plane's machine doesn't have.
	errNotOwnKey = fault.Declare(fault.PermissionDenied, "OPERATOR_WITHOUT_OWN_KEY", "it takes an operator whose key is their own")
)

type operators struct {
	registryv1.UnimplementedOperatorServiceServer
	registryv1.UnimplementedOperatorWriteServiceServer
	Config
}

// named is the name of an operator who has one; ok is false for everybody else, the plane's first operator among them.
func named(who workload.Identity) (name string, ok bool) {
	if !who.Tenant.IsZero() {
		return "", false
	}
	return strings.CutPrefix(who.Service, workload.OperatorPrefix)
}

// fingerprint is the SHA-256 of a certificate's key, its SubjectPublicKeyInfo, in hexadecimal.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Admission admits operators who are on record, active, and with the key that is on record where it is their own. Everybody else is
// admitted as their certificate proves them, and the plane's first operator.
func Admission(cfg Config) func(context.Context, workload.Identity, credentials.AuthInfo) error {
	return func(ctx context.Context, who workload.Identity, info credentials.AuthInfo) error {
		name, ok := named(who)
		if !ok {
			return nil
		}
		t, is := info.(credentials.TLSInfo)
		if !is || len(t.State.PeerCertificates) == 0 {
			return errNotAdmitted
		}
		return cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
			return admitted(ctx, store.New(tx), name, t.State.PeerCertificates[0])
		})
	}
}

// backdated is how long before its making a certificate begins at most, and a minute in which the clocks of who makes it and of the database
// may differ.
const backdated = 6 * time.Minute

// admitted says why an operator may not act with a certificate, or nil.
func admitted(ctx context.Context, q *store.Queries, name string, shown *x509.Certificate) error {
	o, err := q.PresentOperator(ctx, name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNotAdmitted.With("%s is no operator of this plane, or none any more: on its machine, fleet operator add %s --reason '…' makes one", name, name)
	case err != nil:
		return fmt.Errorf("read the operator: %w", err)
	case o.KeyFingerprint != "" && o.KeyFingerprint != fingerprint(shown):
		return errNotAdmitted.With("the certificate of operator %s is over another key than theirs, and is believed by nobody: work with the directory that fleet operator request made", name)
	case o.KeyFingerprint == "" && shown.NotBefore.Add(backdated).Before(o.AddedAt):
		// Of an earlier record of that name, which was removed, for its key perhaps.
		return errNotAdmitted.With("the certificate of operator %s is from before they were put on record: fleet operator add %s --reason '…' makes another", name, name)
	case o.ConfirmedAt == nil:
		return errNotAdmitted.With("operator %s was added, and waits for another operator's word: fleet operator confirm %s --reason '…'", name, name)
	}
	return nil
}

// acting is the record of who makes the change, as it is in its transaction; nil for the plane's first operator, who has none. That the key
// is the one on record was seen at the door.
func (ch change) acting(ctx context.Context) (*store.Operator, error) {
	who, err := rpc.PeerFrom(ctx)
	if err != nil {
		return nil, err
	}
	name, ok := named(who)
	if !ok {
		return nil, nil //nolint:nilnil // none is an answer
	}
	o, err := ch.q.PresentOperator(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read who acts: %w", err)
	}
	return &o, nil
}

// ownKey says whether an operator's key is their own.
func ownKey(o *store.Operator) bool { return o != nil && o.KeyFingerprint != "" }

// ListOperators pages through the records.
func (s *operators) ListOperators(ctx context.Context, req *registryv1.ListOperatorsRequest) (*registryv1.ListOperatorsResponse, error) {
	before := int64(math.MaxInt64)
	if err := readPageToken(req.GetPageToken(), &before); err != nil {
		return nil, err
	}
	size := page.Size(req.GetPageSize())
	res := &registryv1.ListOperatorsResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		proto.Reset(res)
		rows, err := store.New(tx).ListOperators(ctx, store.ListOperatorsParams{Before: before, Size: size + 1})
		if err != nil {
			return err
		}
		rows, res.NextPageToken = onePage(rows, size, func(o store.Operator) string { return pageToken(o.ID) })
		for _, o := range rows {
			res.Operators = append(res.Operators, operatorOf(o))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func operatorOf(o store.Operator) *registryv1.Operator {
	out := &registryv1.Operator{
		Name: o.Name, OwnKey: o.KeyFingerprint != "", KeyFingerprint: o.KeyFingerprint, AddedBy: o.AddedBy, AddedAt: timeOf(o.AddedAt), Reason: o.Reason,
		ConfirmedBy: o.ConfirmedBy, RemovedBy: o.RemovedBy, RemovalReason: o.RemovalReason,
	}
	if o.ConfirmedAt != nil {
		out.ConfirmedAt = timeOf(*o.ConfirmedAt)
	}
	if o.RemovedAt != nil {
		out.RemovedAt = timeOf(*o.RemovedAt)
	}
	return out
}

// onOperators runs fn for the caller while nobody else changes who is an operator.
func (s *operators) onOperators(ctx context.Context, fn func(ctx context.Context, ch change) error) error {
	return s.change(ctx, func(ctx context.Context, ch change) error {
		if err := ch.q.LockOperators(ctx); err != nil {
			return fmt.Errorf("wait for others who change operators: %w", err)
		}
		return fn(ctx, ch)
	})
}

// AddOperator puts an operator on record.
func (s *operators) AddOperator(ctx context.Context, req *registryv1.AddOperatorRequest) (*registryv1.AddOperatorResponse, error) {
	res := &registryv1.AddOperatorResponse{}
	err := s.onOperators(ctx, func(ctx context.Context, ch change) error {
		proto.Reset(res)
		present, err := ch.q.PresentOperator(ctx, req.GetName())
		switch {
		case err == nil && present.KeyFingerprint == req.GetKeyFingerprint():
			res.Operator = operatorOf(present)
			return nil
		case err == nil:
			return fault.New(fault.FailedPrecondition, "%s is an operator with another key: fleet operator remove %s --reason '…' first, where this one is to take its place", req.GetName(), req.GetName())
		case !errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("read the operator: %w", err)
		}
		if other, err := ch.q.PresentOperatorOfKey(ctx, req.GetKeyFingerprint()); err == nil {
			return fault.New(fault.FailedPrecondition, "the key is that of operator %s already: one key is one operator's", other.Name)
		} else if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look whose key it is: %w", err)
		}
		atOnce := s.Plane != prod
		if !atOnce {
			// Until somebody has a key that the plane's machine doesn't, another's word would be that machine's as well.
			known, err := ch.q.OwnKeysKnown(ctx)
			if err != nil {
				return fmt.Errorf("look whether anybody can give a word: %w", err)
			}
			atOnce = !known
		}
		added, err := ch.q.InsertOperator(ctx, store.InsertOperatorParams{Name: req.GetName(), KeyFingerprint: req.GetKeyFingerprint(), AddedBy: ch.actor, Reason: req.GetReason(), AtOnce: atOnce})
		if err != nil {
			return fmt.Errorf("insert the operator: %w", err)
		}
		res.Operator, res.Added = operatorOf(added), true
		return ch.log(ctx, "registry.operator.added", req.GetName(), detail(req))
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// ConfirmOperator is another operator's word.
func (s *operators) ConfirmOperator(ctx context.Context, req *registryv1.ConfirmOperatorRequest) (*registryv1.ConfirmOperatorResponse, error) {
	res := &registryv1.ConfirmOperatorResponse{}
	err := s.onOperators(ctx, func(ctx context.Context, ch change) error {
		o, err := ch.q.PresentOperator(ctx, req.GetName())
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoOperator
		}
		if err != nil {
			return fmt.Errorf("read the operator: %w", err)
		}
		if o.KeyFingerprint != req.GetKeyFingerprint() {
			return fault.New(fault.FailedPrecondition, "the word is for another key of %s than the one on record: see fleet operator list, and ask them", req.GetName())
		}
		if o.ConfirmedAt != nil {
			res.Operator = operatorOf(o)
			return nil
		}
		if o.AddedBy == ch.actor {
			return fault.New(fault.PermissionDenied, "%s added %s and can't confirm them: another operator must", ch.actor, o.Name)
		}
		if err := s.twoPeople(ctx, ch, o); err != nil {
			return err
		}
		confirmed, err := ch.q.ConfirmOperator(ctx, store.ConfirmOperatorParams{ID: o.ID, ConfirmedBy: ch.actor})
		if err != nil {
			return fmt.Errorf("confirm the operator: %w", err)
		}
		res.Operator = operatorOf(confirmed)
		return ch.log(ctx, "registry.operator.confirmed", req.GetName(), detail(req))
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// twoPeople refuses a word that is no second person's: keys that the plane's machine holds are all in one hand there, so that of who adds
// and who confirms one at least has another.
func (s *operators) twoPeople(ctx context.Context, ch change, o store.Operator) error {
	acts, err := ch.acting(ctx)
	if err != nil || ownKey(acts) || s.Plane != prod {
		return err
	}
	who, err := workload.ParseURI(o.AddedBy)
	if err != nil {
		return fmt.Errorf("read who added the operator: %w", err)
	}
	if name, is := named(who); is {
		adder, err := ch.q.PresentOperator(ctx, name)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("read who added the operator: %w", err)
		}
		if err == nil && ownKey(&adder) && adder.AddedAt.Before(o.AddedAt) {
			return nil
		}
	}
	return errNotOwnKey.With("%s works with a key that the plane's machine holds, as %s did who added %s: an operator with a key of their own must confirm them", ch.actor, o.AddedBy, o.Name)
}

// RemoveOperator ends what an operator may. The plane's first has no name, and stays.
func (s *operators) RemoveOperator(ctx context.Context, req *registryv1.RemoveOperatorRequest) (*registryv1.RemoveOperatorResponse, error) {
	res := &registryv1.RemoveOperatorResponse{}
	err := s.onOperators(ctx, func(ctx context.Context, ch change) error {
		o, err := ch.q.LastOperator(ctx, req.GetName())
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoOperator
		}
		if err != nil {
			return fmt.Errorf("read the operator: %w", err)
		}
		if o.RemovedAt != nil {
			res.Operator = operatorOf(o)
			return nil
		}
		removed, err := ch.q.RemoveOperator(ctx, store.RemoveOperatorParams{ID: o.ID, RemovedBy: ch.actor, RemovalReason: req.GetReason()})
		if err != nil {
			return fmt.Errorf("remove the operator: %w", err)
		}
		res.Operator = operatorOf(removed)
		return ch.log(ctx, "registry.operator.removed", req.GetName(), req.GetReason())
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}
