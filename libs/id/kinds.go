package id

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// The kinds of things that have an id. Those with an exported name have ids that are computed from what they name (package access).
type (
	tenantKind         struct{}
	workspaceKind      struct{}
	userKind           struct{}
	serviceAccountKind struct{}
	sessionKind        struct{}
	tokenKind          struct{}
	transferKind       struct{}
	integrationKind    struct{}
	runKind            struct{}
	// ResourceKind is the kind of resources.
	ResourceKind struct{}
	// EntitlementKind is the kind of entitlements.
	EntitlementKind struct{}
	// GrantKind is the kind of grants.
	GrantKind struct{}
	// PersonKind is exported for ids that follow from an address.
	PersonKind     struct{}
	eventKind      struct{}
	messageKind    struct{}
	requestKind    struct{}
	deadLetterKind struct{}
	operationKind  struct{}
	rolloutKind    struct{}
	licenceKind    struct{}
)

func (tenantKind) Prefix() string         { return "tnt" }
func (workspaceKind) Prefix() string      { return "wsp" }
func (userKind) Prefix() string           { return "usr" }
func (serviceAccountKind) Prefix() string { return "svc" }
func (sessionKind) Prefix() string        { return "ses" }
func (tokenKind) Prefix() string          { return "tok" }
func (transferKind) Prefix() string       { return "xfr" }
func (integrationKind) Prefix() string    { return "int" }
func (runKind) Prefix() string            { return "run" }

// Prefix implements Kind.
func (ResourceKind) Prefix() string { return "res" }

// Prefix implements Kind.
func (EntitlementKind) Prefix() string { return "ent" }

// Prefix implements Kind.
func (GrantKind) Prefix() string { return "grt" }

// Prefix implements Kind.
func (PersonKind) Prefix() string { return "per" }

func (eventKind) Prefix() string      { return "evt" }
func (messageKind) Prefix() string    { return "msg" }
func (requestKind) Prefix() string    { return "req" }
func (deadLetterKind) Prefix() string { return "dlt" }
func (operationKind) Prefix() string  { return "opr" }
func (rolloutKind) Prefix() string    { return "rol" }
func (licenceKind) Prefix() string    { return "lic" }

// Ids by kind.
type (
	// Tenant is `tnt_…`.
	Tenant = ID[tenantKind]
	// Workspace is `wsp_…`.
	Workspace = ID[workspaceKind]
	// User is `usr_…`.
	User = ID[userKind]
	// ServiceAccount is `svc_…`.
	ServiceAccount = ID[serviceAccountKind]
	// Session is `ses_…`.
	Session = ID[sessionKind]
	// Token is `tok_…`.
	Token = ID[tokenKind]
	// Transfer is `xfr_…`.
	Transfer = ID[transferKind]
	// Integration is `int_…`.
	Integration = ID[integrationKind]
	// Run is `run_…`.
	Run = ID[runKind]
	// Resource is `res_…`.
	Resource = ID[ResourceKind]
	// Entitlement is `ent_…`.
	Entitlement = ID[EntitlementKind]
	// Grant is `grt_…`.
	Grant = ID[GrantKind]
	// Person is `per_…`.
	Person = ID[PersonKind]
	// Event is `evt_…`.
	Event = ID[eventKind]
	// Message is `msg_…`.
	Message = ID[messageKind]
	// Request is `req_…`.
	Request = ID[requestKind]
	// DeadLetter is `dlt_…`.
	DeadLetter = ID[deadLetterKind]
	// Operation is `opr_…`.
	Operation = ID[operationKind]
	// Rollout is `rol_…`.
	Rollout = ID[rolloutKind]
	// Licence is `lic_…`.
	Licence = ID[licenceKind]
)

// NewTenant makes a new `tnt_…`.
func NewTenant() Tenant { return New[tenantKind]() }

// NewWorkspace makes a new `wsp_…`.
func NewWorkspace() Workspace { return New[workspaceKind]() }

// NewUser makes a new `usr_…`.
func NewUser() User { return New[userKind]() }

// NewServiceAccount makes a new `svc_…`.
func NewServiceAccount() ServiceAccount { return New[serviceAccountKind]() }

// NewSession makes a new `ses_…`.
func NewSession() Session { return New[sessionKind]() }

// NewToken makes a new `tok_…`.
func NewToken() Token { return New[tokenKind]() }

// NewTransfer makes a new `xfr_…`.
func NewTransfer() Transfer { return New[transferKind]() }

// NewIntegration makes a new `int_…`.
func NewIntegration() Integration { return New[integrationKind]() }

// NewRun makes a new `run_…`.
func NewRun() Run { return New[runKind]() }

// NewEvent makes a new `evt_…`.
func NewEvent() Event { return New[eventKind]() }

// NewMessage makes a new `msg_…`.
func NewMessage() Message { return New[messageKind]() }

// NewDeadLetter makes a new `dlt_…`.
func NewDeadLetter() DeadLetter { return New[deadLetterKind]() }

// NewOperation makes a new `opr_…`.
func NewOperation() Operation { return New[operationKind]() }

// NewRollout makes a new `rol_…`.
func NewRollout() Rollout { return New[rolloutKind]() }

// NewRequest makes a new `req_…`: a UUIDv7 (RFC 9562 §5.7) with no counter, since requests of one millisecond need no order and
// every call makes one.
func NewRequest() Request {
	var r Request
	binary.BigEndian.PutUint64(r.uuid[:], uint64(time.Now().UnixMilli())<<16) //nolint:gosec // the clock is past 1970
	_, _ = rand.Read(r.uuid[6:])                                              // never fails, since Go 1.24
	const version, variant = 0x70, 0x80
	r.uuid[6] = r.uuid[6]&0x0f | version
	r.uuid[8] = r.uuid[8]&0x3f | variant
	return r
}

// ParseTenant reads a `tnt_…`.
func ParseTenant(s string) (Tenant, error) { return Parse[tenantKind](s) }

// ParseWorkspace reads a `wsp_…`.
func ParseWorkspace(s string) (Workspace, error) { return Parse[workspaceKind](s) }

// ParseUser reads a `usr_…`.
func ParseUser(s string) (User, error) { return Parse[userKind](s) }

// ParseServiceAccount reads a `svc_…`.
func ParseServiceAccount(s string) (ServiceAccount, error) { return Parse[serviceAccountKind](s) }

// ParseSession reads a `ses_…`.
func ParseSession(s string) (Session, error) { return Parse[sessionKind](s) }

// ParseTransfer reads a `xfr_…`.
func ParseTransfer(s string) (Transfer, error) { return Parse[transferKind](s) }

// ParseIntegration reads a `int_…`.
func ParseIntegration(s string) (Integration, error) { return Parse[integrationKind](s) }

// ParseRun reads a `run_…`.
func ParseRun(s string) (Run, error) { return Parse[runKind](s) }

// ParseResource reads a `res_…`.
func ParseResource(s string) (Resource, error) { return Parse[ResourceKind](s) }

// ParsePerson reads a `per_…`.
func ParsePerson(s string) (Person, error) { return Parse[PersonKind](s) }

// ParseEvent reads a `evt_…`.
func ParseEvent(s string) (Event, error) { return Parse[eventKind](s) }

// ParseMessage reads a `msg_…`.
func ParseMessage(s string) (Message, error) { return Parse[messageKind](s) }

// ParseDeadLetter reads a `dlt_…`.
func ParseDeadLetter(s string) (DeadLetter, error) { return Parse[deadLetterKind](s) }

// ParseOperation reads an `opr_…`.
func ParseOperation(s string) (Operation, error) { return Parse[operationKind](s) }

// ParseRollout reads a `rol_…`.
func ParseRollout(s string) (Rollout, error) { return Parse[rolloutKind](s) }

// NewLicence makes a new `lic_…`.
func NewLicence() Licence { return New[licenceKind]() }
