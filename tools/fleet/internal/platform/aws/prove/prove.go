// Package prove has the doors of what a tenant's stack holds on AWS, for the proof of isolation, and who of its set may ask what. It relies on
// libs/awsdoors to ask them, and on its caller for somebody who asks as each role.
package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/libs/awsdoors"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Walls of a set on AWS.
const (
	wallObjects  = "objects: S3"
	wallMessages = "messages: SQS"
	wallSecrets  = "secrets: Secrets Manager" //nolint:gosec // the name of a wall
	wallKeys     = "encryption: KMS"
	wallLogs     = "logs: CloudWatch"
	wallRoles    = "roles: STS"
)

// Stack is a tenant's that was deployed.
type Stack struct {
	// Tenant's id, and its slug.
	Tenant, Slug string
	stack.Holdings
	// QueueURL is where its queue is, Key the ARN of its key.
	QueueURL, Key string
	// Sessions ask as its roles, by their ARNs.
	Sessions map[string]Session
	// Provisioner looks at the key, which no task can but through AWS's services.
	Provisioner Session
}

// Session is somebody who asks as a role; see awsdoors.Try.
type Session interface {
	Ask(ctx context.Context, d awsdoors.Door) error
}

// Here asks from here, with credentials of the role.
type Here struct{ aws.Config }

// Ask implements Session.
func (h Here) Ask(ctx context.Context, d awsdoors.Door) error { return awsdoors.Try(ctx, h.Config, d) }

// Told has the answers that somebody else was given, who asked as the role.
type Told map[awsdoors.Door]error

// Ask implements Session.
func (t Told) Ask(_ context.Context, d awsdoors.Door) error {
	err, asked := t[d]
	if !asked {
		return errors.New("nobody asked")
	}
	return err
}

// Unasked is nobody: it was not possible to ask as the role.
type Unasked struct{ Why error }

// Ask implements Session.
func (u Unasked) Ask(context.Context, awsdoors.Door) error { return u.Why }

// named is how a report calls a role.
func named(r stack.HeldRole) string {
	if r.Starts {
		return r.Component + " (start)"
	}
	return r.Component + " (task)"
}

// Cloud has the doors of a stack, with their controls.
func (s Stack) Cloud() *isolation.Cloud {
	c := &isolation.Cloud{}
	for _, r := range s.Roles {
		c.Roles = append(c.Roles, isolation.CloudRole{Name: named(r), Session: s.Sessions[r.ARN]})
	}
	c.Doors = s.doors()
	return c
}

// door is one whose control is the first of its holders.
func (s Stack) door(wall, at, what string, d awsdoors.Door, holders ...string) isolation.CloudDoor {
	out := isolation.CloudDoor{Wall: wall, At: at + " of " + s.Slug, What: what, Holders: holders}
	out.Try = func(ctx context.Context, session any) error {
		as, is := session.(Session)
		if !is {
			return fmt.Errorf("the session is a %T", session)
		}
		err := as.Ask(ctx, d)
		if errors.Is(err, awsdoors.ErrRefused) {
			return fmt.Errorf("%w: %s", isolation.ErrCloudRefused, strings.TrimPrefix(err.Error(), awsdoors.ErrRefused.Error()+": "))
		}
		return err
	}
	for _, r := range s.Roles {
		if len(holders) > 0 && named(r) == holders[0] {
			out.Control = isolation.CloudRole{Name: s.Slug + "'s own " + named(r), Session: s.Sessions[r.ARN]}
		}
	}
	return out
}

func (s Stack) objects() []isolation.CloudDoor {
	var out []isolation.CloudDoor
	for _, b := range s.Buckets {
		of := func(ask awsdoors.Ask) awsdoors.Door {
			return awsdoors.Door{Ask: ask, Of: b.Name, Prefix: s.Tenant + "/"}
		}
		all := slices.Concat(tasks(b.Writers), tasks(b.Readers))
		out = append(out,
			s.door(wallObjects, "bucket "+b.Name, "list objects", of(awsdoors.ListObjects), all...),
			s.door(wallObjects, "bucket "+b.Name, "read an object", of(awsdoors.ReadObject), all...),
			s.door(wallObjects, "bucket "+b.Name, "write over an object, if it is one that can't be", of(awsdoors.WriteObject), tasks(b.Writers)...))
	}
	return out
}

func (s Stack) messages() []isolation.CloudDoor {
	if s.Queue == "" {
		return nil
	}
	of := func(ask awsdoors.Ask) awsdoors.Door { return awsdoors.Door{Ask: ask, Of: s.QueueURL} }
	return []isolation.CloudDoor{
		s.door(wallMessages, "queue", "send a message, delayed longer than can be", of(awsdoors.SendMessage), tasks(s.Senders)...),
		s.door(wallMessages, "queue", "delete a message that isn't there", of(awsdoors.DeleteMessage), tasks(s.Receivers)...),
		s.door(wallMessages, "queue", "hide a message that isn't there", of(awsdoors.HideMessage), tasks(s.Receivers)...),
	}
}

// started are the doors of what ECS starts each component with.
func (s Stack) started() []isolation.CloudDoor {
	var out []isolation.CloudDoor
	for _, r := range s.Roles {
		if !r.Starts {
			continue
		}
		out = append(out,
			s.door(wallSecrets, "secret of "+r.Component, "read it", awsdoors.Door{Ask: awsdoors.ReadSecret, Of: s.Secrets[r.Component]}, named(r)),
			s.door(wallLogs, "log of "+r.Component, "write to a stream that isn't there", awsdoors.Door{Ask: awsdoors.WriteLog, Of: s.Logs[r.Component]}, named(r)))
	}
	return out
}

// key is asked about by nobody but the provisioner: tasks use it through AWS's services alone.
func (s Stack) key() []isolation.CloudDoor {
	d := s.door(wallKeys, "key", "ask about it", awsdoors.Door{Ask: awsdoors.LookAtKey, Of: s.Key})
	d.Control = isolation.CloudRole{Name: "the provisioner", Session: s.Provisioner}
	return []isolation.CloudDoor{d}
}

// roles are taken by ECS for a task of the set, which its own session shows, and by nobody else.
func (s Stack) roles() []isolation.CloudDoor {
	var out []isolation.CloudDoor
	for _, r := range s.Roles {
		out = append(out, s.door(wallRoles, "role "+named(r), "take it", awsdoors.Door{Ask: awsdoors.TakeRole, Of: r.ARN}, named(r)))
	}
	return out
}

// doors is what is asked of a stack, by somebody of any.
func (s Stack) doors() []isolation.CloudDoor {
	return slices.Concat(s.objects(), s.messages(), s.started(), s.key(), s.roles())
}

// Doors are all that a stack has, for who asks them elsewhere; see Told.
func (s Stack) Doors(ctx context.Context) []awsdoors.Door {
	var all list
	for _, d := range s.doors() {
		_ = d.Try(ctx, &all)
	}
	return all
}

// list keeps what it is asked to ask.
type list []awsdoors.Door

// Ask implements Session.
func (l *list) Ask(_ context.Context, d awsdoors.Door) error {
	*l = append(*l, d)
	return nil
}

// tasks are the task roles of components.
func tasks(components []string) []string {
	out := make([]string, 0, len(components))
	for _, c := range components {
		out = append(out, named(stack.HeldRole{Component: c}))
	}
	return out
}
