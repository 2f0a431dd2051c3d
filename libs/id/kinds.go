package id

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
	ResourceKind       struct{}
	EntitlementKind    struct{}
	GrantKind          struct{}
	personKind         struct{}
	eventKind          struct{}
	messageKind        struct{}
	requestKind        struct{}
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
func (ResourceKind) Prefix() string       { return "res" }
func (EntitlementKind) Prefix() string    { return "ent" }
func (GrantKind) Prefix() string          { return "grt" }
func (personKind) Prefix() string         { return "per" }
func (eventKind) Prefix() string          { return "evt" }
func (messageKind) Prefix() string        { return "msg" }
func (requestKind) Prefix() string        { return "req" }

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
	Person = ID[personKind]
	// Event is `evt_…`.
	Event = ID[eventKind]
	// Message is `msg_…`.
	Message = ID[messageKind]
	// Request is `req_…`.
	Request = ID[requestKind]
)

// NewTenant and its siblings make ids of their kind.
func NewTenant() Tenant                 { return New[tenantKind]() }
func NewWorkspace() Workspace           { return New[workspaceKind]() }
func NewUser() User                     { return New[userKind]() }
func NewServiceAccount() ServiceAccount { return New[serviceAccountKind]() }
func NewSession() Session               { return New[sessionKind]() }
func NewToken() Token                   { return New[tokenKind]() }
func NewTransfer() Transfer             { return New[transferKind]() }
func NewIntegration() Integration       { return New[integrationKind]() }
func NewRun() Run                       { return New[runKind]() }
func NewPerson() Person                 { return New[personKind]() }
func NewEvent() Event                   { return New[eventKind]() }
func NewMessage() Message               { return New[messageKind]() }
func NewRequest() Request               { return New[requestKind]() }

// ParseTenant and its siblings read ids of their kind.
func ParseTenant(s string) (Tenant, error)                 { return Parse[tenantKind](s) }
func ParseWorkspace(s string) (Workspace, error)           { return Parse[workspaceKind](s) }
func ParseUser(s string) (User, error)                     { return Parse[userKind](s) }
func ParseServiceAccount(s string) (ServiceAccount, error) { return Parse[serviceAccountKind](s) }
func ParseSession(s string) (Session, error)               { return Parse[sessionKind](s) }
func ParseToken(s string) (Token, error)                   { return Parse[tokenKind](s) }
func ParseTransfer(s string) (Transfer, error)             { return Parse[transferKind](s) }
func ParseIntegration(s string) (Integration, error)       { return Parse[integrationKind](s) }
func ParseRun(s string) (Run, error)                       { return Parse[runKind](s) }
func ParseResource(s string) (Resource, error)             { return Parse[ResourceKind](s) }
func ParseEntitlement(s string) (Entitlement, error)       { return Parse[EntitlementKind](s) }
func ParseGrant(s string) (Grant, error)                   { return Parse[GrantKind](s) }
func ParsePerson(s string) (Person, error)                 { return Parse[personKind](s) }
func ParseEvent(s string) (Event, error)                   { return Parse[eventKind](s) }
func ParseMessage(s string) (Message, error)               { return Parse[messageKind](s) }
