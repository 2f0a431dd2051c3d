package stack

// policyVersion is the version of the language of policies.
const policyVersion = "2012-10-17"

// policy is a policy of IAM.
type policy struct {
	Version   string
	Statement []statement
}

// statement is one statement of a policy.
type statement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Principal any            `json:",omitempty"`
	Action    []string       `json:",omitempty"`
	Resource  []string       `json:",omitempty"`
	Condition map[string]any `json:",omitempty"`
}

// when is what a condition compares, by its key.
type when map[string]any

func document(statements ...statement) *policy {
	return &policy{Version: policyVersion, Statement: statements}
}

func allow(sid string, actions, resources []string) statement {
	return statement{Sid: sid, Effect: "Allow", Action: actions, Resource: resources}
}

// under has a statement hold where a condition does as well.
func (s statement) under(operator string, w when) statement {
	conditions := map[string]any{operator: w}
	for k, v := range s.Condition {
		conditions[k] = v
	}
	s.Condition = conditions
	return s
}

// by makes a statement of a resource's policy hold for principals of the account, by the ARNs of their roles. It names the account and
// compares aws:PrincipalArn, since a policy that names a role is refused until the role is there, and holds the id of one that left.
func (s statement) by(p Place, roles ...string) statement {
	s.Principal = map[string]string{"AWS": p.iam("root")}
	return s.under("ArnEquals", when{"aws:PrincipalArn": roles})
}

// closed denies everything on resources to all roles but these, and to everybody without TLS, whatever else allows it. What AWS's own
// services do for the account (encrypt a log, say) is not a role's.
func closed(actions, resources, roles []string) []statement {
	everybody := map[string]string{"AWS": "*"}
	return []statement{
		{Sid: "OnlyItsOwn", Effect: "Deny", Principal: everybody, Action: actions, Resource: resources,
			Condition: map[string]any{"ArnNotEquals": when{"aws:PrincipalArn": roles}, "Bool": when{"aws:PrincipalIsAWSService": "false"}}},
		{Sid: "OnlyOverTLS", Effect: "Deny", Principal: everybody, Action: actions, Resource: resources,
			Condition: map[string]any{"Bool": when{"aws:SecureTransport": "false"}}},
	}
}
