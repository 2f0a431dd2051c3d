package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"a3os.app/libs/awsdoors"
	"a3os.app/libs/awssession"
)

// Variables of ask-doors: the plane, and the doors, a JSON list.
const (
	doorsPlane = "A3_PLANE"
	doorsList  = "A3_DOORS"
)

// askDoors asks every door that it is told, and writes a line for each. It ends well whatever they answer.
func askDoors(ctx context.Context, environ []string, out io.Writer) int {
	told := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		told[name] = value
	}
	var doors []awsdoors.Door
	if err := json.Unmarshal([]byte(told[doorsList]), &doors); err != nil {
		fmt.Fprintf(os.Stderr, "accessos: %s is no list of doors: %v\n", doorsList, err)
		return exitUsage
	}
	cfg, err := awssession.Load(ctx, "", awssession.Of(told[doorsPlane]))
	if err == nil {
		err = awsdoors.TryAll(ctx, cfg, doors, out)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
		return exitFailed
	}
	return 0
}
