package isolation

import (
	"context"
	"errors"
	"slices"
)

// Cloud is what a set has at a provider of a cloud: the roles that its components call as, and the doors of what it keeps there.
type Cloud struct {
	Roles []CloudRole
	Doors []CloudDoor
}

// CloudRole is one that a component calls as.
type CloudRole struct {
	// Name as a report has it, as `audit (task)`.
	Name string
	// Session is the platform's: what Try of its doors takes.
	Session any
}

// CloudDoor is one thing that can be asked of something of a set. Asking changes nothing, whoever asks.
type CloudDoor struct {
	// Wall, as `objects: S3`; At is what is asked, and What for.
	Wall, At, What string
	// Try asks with a role's session: nil where it is let in, ErrCloudRefused where it is refused, another error where neither is known.
	Try func(ctx context.Context, session any) error
	// Holders are the roles of its own set that may. Control is one that is known to, of the set or of the platform.
	Holders []string
	Control CloudRole
}

// ErrCloudRefused says that the provider refused a call for who called.
var ErrCloudRefused = errors.New("refused")

func (d CloudDoor) as(role CloudRole) ask {
	return func(ctx context.Context) answer {
		err := d.Try(ctx, role.Session)
		switch {
		case err == nil:
			return openedWith("%s was let in", role.Name)
		case errors.Is(err, ErrCloudRefused):
			return refusedWith("%v", err)
		}
		return unclearWith("%v", err)
	}
}

// clouds are the roles of one set at the doors of another, or at those of its own that they don't need.
func clouds(from, at *Set) []attempt {
	if from.Cloud == nil || at.Cloud == nil {
		return nil
	}
	var out []attempt
	for _, door := range at.Cloud.Doors {
		control := &control{what: door.Control.Name, ask: door.as(door.Control)}
		for _, role := range from.Cloud.Roles {
			if from == at && slices.Contains(door.Holders, role.Name) {
				continue
			}
			out = append(out, attempt{wall: door.Wall, from: from.Name() + "/" + role.Name, at: door.At, what: door.What, ask: door.as(role), control: control})
		}
	}
	return out
}
