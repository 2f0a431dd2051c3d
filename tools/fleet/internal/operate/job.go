package operate

import (
	"encoding/json"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
)

// job is all that the process is told that carries out one tenant's steps. It comes by standard input: a command line and an
// environment can be read by others, and stay.
type job struct {
	// Operation, and the secret of its lease.
	Operation, LeaseToken string
	// Steps that are not done, in order, and the one that is on record as begun, where one is.
	Steps []string
	Begun string
	// Last is the operation's last step: that it is done is on record with the operation's end, which is the word of who started the process.
	Last string
	// Set and Release.
	Blueprint *blueprint.Blueprint
	Tenant    string
	Slug      string
	Tier      registryv1.IsolationTier
	Account   string
	// StateFrom is where the tenant stood before.
	StateFrom registryv1.TenantState
	Release   platform.Release
	// Planned is the change of the set's stack that the plan names; nil where it names none.
	Planned *registryv1.StackChange
	// Registry, and the keypair of the tenant's provisioner; empty where the tenant's authority is gone already, at the end of its life.
	Registry Registry
	Keypair  string
	// Platform is its name, Delegation what it lets this process do.
	Platform   string
	Delegation platform.Delegation
	// Front is where the tenant's people reach it.
	Front Front
	// Failpoint is for tests alone (libs/failpoint).
	Failpoint string `json:",omitempty"`
}

// Front is how a set is asked whether it answers.
type Front struct {
	// URL that answers 200 to anybody; empty where the blueprint has none.
	URL string
	// Dial is the gateway's address.
	Dial string
	// Roots that its certificate is believed by, PEM; empty for the machine's.
	Roots string
}

// word is what that process says: how a step is, or what it asks for.
type word struct {
	// Ask is a step that takes the plane's power.
	Ask string `json:",omitempty"`
	// Record is a step to be recorded by who started it, where the tenant has no authority any more.
	Record string `json:",omitempty"`
	// Call is what the platform of that process asks the platform of who started it, For a step that it was given.
	Call json.RawMessage `json:",omitempty"`
	For  string          `json:",omitempty"`
	// Step and how it is.
	Step    string               `json:",omitempty"`
	State   registryv1.StepState `json:",omitempty"`
	Changed bool                 `json:",omitempty"`
	Detail  string               `json:",omitempty"`
	Took    time.Duration        `json:",omitempty"`
	// Away is the last word of one that fails because the registry did not answer.
	Away bool `json:",omitempty"`
}

// reply is what it is answered.
type reply struct {
	Changed bool   `json:",omitempty"`
	Detail  string `json:",omitempty"`
	Error   string `json:",omitempty"`
	// Given is what the platform of who started it hands over.
	Given json.RawMessage `json:",omitempty"`
}

func encode(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(text, '\n'), err
}
