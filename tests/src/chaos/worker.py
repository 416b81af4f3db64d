"""The worker of the chaos run in Python: JSON lines, one task at a time. Writes the same lines as chaos-worker."""
import fcntl, json, os, socket, time

connection = socket.socket(fileno=int(os.environ["WORKHALL_FD"]))
connection.set_inheritable(False)
os.set_inheritable(int(os.environ["WORKHALL_MARK_FD"]), False)
name, number, generation = (os.environ["WORKHALL_" + key] for key in ("WORKER", "NUMBER", "GENERATION"))
supervisor = os.getppid()
directory = os.path.dirname(os.environ["WORKHALL_SOCKET"])
log = os.open(os.path.join(directory, "worker.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(kind, message):
    os.write(log, f"{kind} {name} {number} {generation} {os.getpid()} {supervisor} {message}\n".encode())


lock = os.open(os.path.join(directory, "lock-" + name.replace("/", "%")), os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    note("X", 0)
with open("/proc/self/stat") as stat:
    note("S", stat.read().rsplit(")", 1)[1].split()[19])
lines = connection.makefile("r", encoding="utf-8", newline="\n")
out = connection.makefile("w", encoding="utf-8", newline="\n")


def say(message):
    out.write(json.dumps(message) + "\n")
    out.flush()


say({"ready": {"protocol": 1, "window": 1}})
for line in lines:
    message = json.loads(line)
    if "kill" in message:
        break
    if "error" in message:
        note("V", message["error"]["detail"].replace(" ", "_"))
        break
    if "task" not in message:
        continue
    task = message["task"]
    note("B", task["id"])
    try:
        if task["method"] == "work":
            time.sleep(task["args"][0] / 1e6)
        elif task["method"] == "crash":
            os.abort() if task["args"][0] % 2 else os._exit(task["args"][0] % 3)
        else:
            raise LookupError("as asked")
        note("E", task["id"])
        say({"done": {"id": task["id"], "result": task["id"]}})
    except LookupError as error:
        note("E", task["id"])
        say({"failed": {"id": task["id"], "error": str(error)}})
