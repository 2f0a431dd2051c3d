// Package csv reads the access of any system without an API from an upload with a declared mapping of columns. It promises that an
// upload is taken whole or not at all: it is checked from the first line to the last before the first record is emitted, and what
// is wrong with it is named by line. Memory is bounded by the size that an upload may have.
package csv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

// Scope is the only one: an upload is the whole system.
const Scope = "upload"

// MaxContent is how long an upload may be, in bytes; the API takes no longer one.
const MaxContent = 16 << 20

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
	if checkpoint != nil && at.Content != found.digest {
		return nil, connector.Permanent(errors.New("the upload or its columns changed while they were read: start a new run"))
	}
	at.Content = found.digest
	sink.Progress(fmt.Sprintf("reading %d rows", found.rows))
	e := &emitter{system: source.Settings.GetCsv().GetSystemName(), accounts: found.accounts, seen: map[string]struct{}{}, skip: at.Next, sink: sink}
	digest, err := eachRow(ctx, source, func(r row) error { return e.row(ctx, r) })
	switch {
	case errors.Is(err, errDue):
		at.Next = e.emitted
		return json.Marshal(at)
	case err != nil:
		return nil, err
	case digest != found.digest:
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
	if bad, ok := errors.AsType[*BadRowsError](err); ok {
		return connector.TestResult{Message: bad.summary(), Missing: bad.Rows}, nil
	}
	if permanent, ok := errors.AsType[*connector.PermanentError](err); ok {
		return connector.TestResult{Message: permanent.Error()}, nil
	}
	if err != nil {
		return connector.TestResult{}, err
	}
	return connector.TestResult{OK: true, Message: fmt.Sprintf("%d rows about %d accounts can be read", found.rows, len(found.accounts))}, nil
}

// checked is an upload that was found to be right.
type checked struct {
	digest   string
	rows     int
	accounts map[string]*account
}

// account is what all rows of an account say of it together, with the lines that said so first.
type account struct {
	facts [3]string
	lines [3]int
}

// The facts of an account.
const (
	factDisplayName = iota
	factEmail
	factStatus
)

var factNames = [...]string{factDisplayName: "display name", factEmail: "email", factStatus: "status"}

// check reads the whole upload and keeps what it says of accounts.
func check(ctx context.Context, source connector.Source) (*checked, error) {
	found := &checked{accounts: map[string]*account{}}
	var bad BadRowsError
	digest, err := eachRow(ctx, source, func(r row) error {
		found.rows++
		if found.rows > maxRows {
			return connector.Permanent(fmt.Errorf("the upload has more than %d rows: divide it into several integrations", maxRows))
		}
		if r.problem != "" {
			bad.add(r.line, r.problem)
			return nil
		}
		a, ok := found.accounts[r.account]
		if !ok {
			a = new(account)
			found.accounts[r.account] = a
		}
		for i, fact := range [...]string{r.displayName, r.email, r.status} {
			switch {
			case fact == "" || fact == a.facts[i]:
			case a.facts[i] == "":
				a.facts[i], a.lines[i] = fact, r.line
			default:
				bad.add(r.line, fmt.Sprintf("account %q has the %s %q, but line %d says %q", r.account, factNames[i], fact, a.lines[i], a.facts[i]))
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case bad.Total > 0:
		return nil, connector.Permanent(&bad)
	case found.rows == 0:
		// Taken as it is, it would say that nobody has access any more.
		return nil, connector.Permanent(errors.New("the upload has no rows under its header: upload it again with its rows"))
	}
	found.digest = digest
	return found, nil
}

// eachRow opens the content and calls f with every row. The digest is of the content and the mapping.
func eachRow(ctx context.Context, source connector.Source, f func(row) error) (digest string, err error) {
	settings := source.Settings.GetCsv()
	if settings == nil {
		return "", connector.Permanent(errors.New("the integration has no csv settings: create it anew as a csv integration"))
	}
	content, err := source.Content(ctx)
	if err != nil {
		return "", fmt.Errorf("open the upload: %w", err)
	}
	defer content.Close()
	h := sha256.New()
	mapping, err := proto.MarshalOptions{Deterministic: true}.Marshal(settings)
	if err != nil {
		return "", connector.Permanent(fmt.Errorf("read the mapping of columns: %w", err))
	}
	h.Write(mapping)
	if err := parse(ctx, io.TeeReader(content, h), settings, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// errDue ends the second reading of an upload when the slice is due.
var errDue = errors.New("the slice is due")

// emitter turns rows into records, each once, and passes over those that earlier slices handed over.
type emitter struct {
	system   string
	accounts map[string]*account
	seen     map[string]struct{}
	skip     int
	emitted  int
	made     int
	pending  []*discoveryv1.Record
	sink     connector.Sink
}

func (e *emitter) row(ctx context.Context, r row) error {
	user := &discoveryv1.ResourceRef{Type: "user", ExternalId: r.account}
	if e.first("user", r.account) {
		e.resource(user, e.accounts[r.account])
	}
	because := fmt.Sprintf("line %d", r.line)
	if r.group != "" {
		group := &discoveryv1.ResourceRef{Type: "group", ExternalId: r.group}
		e.hold(user, group, "member", discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_MEMBERSHIP, because)
	}
	if r.resource != "" {
		app := &discoveryv1.ResourceRef{Type: "app", ExternalId: r.resource}
		e.hold(user, app, r.entitlement, discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_PERMISSION, because)
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

func (e *emitter) resource(name *discoveryv1.ResourceRef, a *account) {
	r := &discoveryv1.Resource{Type: name.GetType(), ExternalId: name.GetExternalId(), DisplayName: name.GetExternalId(), Attributes: map[string]string{"system": e.system}}
	if a != nil {
		r.Account = true
		if a.facts[factDisplayName] != "" {
			r.DisplayName = a.facts[factDisplayName]
		}
		r.Attributes["status"] = "active"
		if a.facts[factStatus] != "" {
			r.Attributes["status"] = a.facts[factStatus]
		}
		if a.facts[factEmail] != "" {
			r.Attributes["email"] = a.facts[factEmail]
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

// fields are the columns that a mapping declares, by what they hold.
func fields(settings *integrationsv1.CsvSettings) (map[integrationsv1.CsvField]string, error) {
	declared := map[integrationsv1.CsvField]string{}
	headers := map[string]bool{}
	for _, c := range settings.GetColumns() {
		if declared[c.GetField()] != "" {
			return nil, fmt.Errorf("columns %q and %q are both declared to hold the %s: declare one", declared[c.GetField()], c.GetHeader(), fieldName(c.GetField()))
		}
		if headers[c.GetHeader()] {
			return nil, fmt.Errorf("column %q is declared twice: declare it once", c.GetHeader())
		}
		headers[c.GetHeader()] = true
		declared[c.GetField()] = c.GetHeader()
	}
	if declared[integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID] == "" {
		return nil, errors.New("no column is declared to hold the account id: declare one")
	}
	if declared[integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT] != "" && declared[integrationsv1.CsvField_CSV_FIELD_RESOURCE] == "" {
		return nil, errors.New("a column is declared to hold entitlements and none the resource that they are on: declare one")
	}
	return declared, nil
}
