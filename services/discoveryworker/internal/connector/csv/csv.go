// Package csv reads the access of any system without an API from an upload with a declared mapping of columns. It promises that an
// upload is taken whole or not at all: it is checked from the first line to the last before the first record is emitted, and what
// is wrong with it is named by line. What an upload is, and what is wrong with one, stands in libs/csvupload. Memory is bounded by the
// size that an upload may have.
package csv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/csvupload"
	"a3os.app/services/discoveryworker/internal/connector"
)

// Scope is the only one: an upload is the whole system.
const Scope = "upload"

// batch is how many records are handed over at once; between batches the sink is asked whether the slice is due.
const batch = 256

// Connector reads uploads. It keeps nothing.
type Connector struct{}

// New makes a connector.
func New() *Connector { return &Connector{} }

// position is the checkpoint: how many records of which content, read by which mapping, were handed over.
type position struct {
	Content string `json:"content"`
	Next    int    `json:"next"`
}

// Read implements connector.Connector. Every error about the upload itself is permanent.
func (c *Connector) Read(ctx context.Context, source connector.Source, checkpoint []byte, sink connector.Sink) ([]byte, error) {
	var at position
	if checkpoint != nil {
		if err := json.Unmarshal(checkpoint, &at); err != nil || at.Next < 0 || at.Content == "" {
			return nil, connector.Permanent(errors.New("the checkpoint isn't one of the csv connector: start a new run"))
		}
	}
	sink.Progress("checking the upload")
	found, err := check(ctx, source)
	if err != nil {
		return nil, err
	}
	if checkpoint != nil && at.Content != found.Digest {
		return nil, connector.Permanent(errors.New("the upload or its columns changed while they were read: start a new run"))
	}
	at.Content = found.Digest
	sink.Progress(fmt.Sprintf("reading %d rows", found.Rows))
	e := &emitter{system: source.Settings.GetCsv().GetSystemName(), accounts: found.Accounts, seen: map[string]struct{}{}, skip: at.Next, sink: sink}
	digest, err := read(ctx, source, func(r csvupload.Row) error { return e.row(ctx, r) })
	switch {
	case errors.Is(err, errDue):
		at.Next = e.emitted
		return json.Marshal(at)
	case err != nil:
		return nil, err
	case digest != found.Digest:
		return nil, connector.Permanent(errors.New("the upload changed while it was read: start a new run"))
	}
	if err := e.flush(ctx); err != nil {
		return nil, err
	}
	sink.Complete(Scope)
	return nil, nil
}

// Test implements connector.Connector: it checks the whole upload.
func (c *Connector) Test(ctx context.Context, source connector.Source) (connector.TestResult, error) {
	found, err := check(ctx, source)
	if bad, ok := csvupload.IsWrong(err); ok {
		return connector.TestResult{Message: bad.What, Missing: bad.Rows}, nil
	}
	if permanent, ok := errors.AsType[*connector.PermanentError](err); ok {
		return connector.TestResult{Message: permanent.Error()}, nil
	}
	if err != nil {
		return connector.TestResult{}, err
	}
	return connector.TestResult{OK: true, Message: fmt.Sprintf("%d rows about %d accounts can be read", found.Rows, len(found.Accounts))}, nil
}

// check reads the whole upload. The upload's own fault is permanent.
func check(ctx context.Context, source connector.Source) (*csvupload.Checked, error) {
	content, err := source.Content(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the upload: %w", err)
	}
	defer content.Close()
	found, err := csvupload.Check(ctx, content, source.Settings.GetCsv())
	return found, permanent(err)
}

// read calls f with every row of an upload that was found right.
func read(ctx context.Context, source connector.Source, f func(csvupload.Row) error) (digest string, err error) {
	content, err := source.Content(ctx)
	if err != nil {
		return "", fmt.Errorf("open the upload: %w", err)
	}
	defer content.Close()
	digest, err = csvupload.Read(ctx, content, source.Settings.GetCsv(), f)
	return digest, permanent(err)
}

func permanent(err error) error {
	if _, ok := csvupload.IsWrong(err); ok {
		return connector.Permanent(err)
	}
	return err
}

// errDue ends the second reading of an upload when the slice is due.
var errDue = errors.New("the slice is due")

// emitter turns rows into records, each once, and passes over those that earlier slices handed over.
type emitter struct {
	system   string
	accounts map[string]csvupload.Account
	seen     map[string]struct{}
	skip     int
	emitted  int
	made     int
	pending  []*discoveryv1.Record
	sink     connector.Sink
}

func (e *emitter) row(ctx context.Context, r csvupload.Row) error {
	user := &discoveryv1.ResourceRef{Type: "user", ExternalId: r.Account}
	if e.first("user", r.Account) {
		a := e.accounts[r.Account]
		e.resource(user, &a)
	}
	because := fmt.Sprintf("line %d", r.Line)
	if r.Group != "" {
		group := &discoveryv1.ResourceRef{Type: "group", ExternalId: r.Group}
		e.hold(user, group, "member", discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_MEMBERSHIP, because)
	}
	if r.Resource != "" {
		app := &discoveryv1.ResourceRef{Type: "app", ExternalId: r.Resource}
		e.hold(user, app, r.Entitlement, discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_PERMISSION, because)
	}
	if len(e.pending) < batch {
		return nil
	}
	if err := e.flush(ctx); err != nil {
		return err
	}
	if e.sink.Due() {
		return errDue
	}
	return nil
}

// first says that something is met for the first time.
func (e *emitter) first(words ...string) bool {
	// No text of a row holds a NUL.
	key := strings.Join(words, "\x00")
	if _, ok := e.seen[key]; ok {
		return false
	}
	e.seen[key] = struct{}{}
	return true
}

func (e *emitter) resource(name *discoveryv1.ResourceRef, a *csvupload.Account) {
	r := &discoveryv1.Resource{Type: name.GetType(), ExternalId: name.GetExternalId(), DisplayName: name.GetExternalId(), Attributes: map[string]string{"system": e.system}}
	if a != nil {
		r.Account = true
		if a.DisplayName != "" {
			r.DisplayName = a.DisplayName
		}
		r.Attributes["status"] = "active"
		if a.Status != "" {
			r.Attributes["status"] = a.Status
		}
		if a.Email != "" {
			r.Attributes["email"] = a.Email
		}
	}
	e.add(&discoveryv1.Record{Scope: Scope, Kind: &discoveryv1.Record_Resource{Resource: r}})
}

// hold gives a user an entitlement on a thing, and adds the two when they are new.
func (e *emitter) hold(user, on *discoveryv1.ResourceRef, name string, purpose discoveryv1.EntitlementPurpose, because string) {
	if e.first(on.GetType(), on.GetExternalId()) {
		e.resource(on, nil)
	}
	if e.first("entitlement", on.GetType(), on.GetExternalId(), name) {
		e.add(&discoveryv1.Record{Scope: Scope, Kind: &discoveryv1.Record_Entitlement{Entitlement: &discoveryv1.Entitlement{Resource: on, Name: name, Purpose: purpose}}})
	}
	if e.first("grant", user.GetExternalId(), on.GetType(), on.GetExternalId(), name) {
		e.add(&discoveryv1.Record{Scope: Scope, Kind: &discoveryv1.Record_Grant{Grant: &discoveryv1.Grant{
			Principal: user, Entitlement: &discoveryv1.EntitlementRef{Resource: on, Name: name}, Reason: because,
		}}})
	}
}

func (e *emitter) add(r *discoveryv1.Record) {
	if e.made++; e.made > e.skip {
		e.pending = append(e.pending, r)
	}
}

func (e *emitter) flush(ctx context.Context) error {
	if len(e.pending) > 0 {
		if err := e.sink.Emit(ctx, e.pending...); err != nil {
			return err
		}
	}
	e.emitted = e.made
	e.pending = e.pending[:0]
	return nil
}
