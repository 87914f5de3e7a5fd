"""headrace up, down: the local services."""

from concurrent.futures import ThreadPoolExecutor

from flows.cli import options, show


def up(as_json: options.Json = False) -> None:
    """Starts the Prefect server with its UI and a Ray head on this machine, and prints their addresses."""
    from tasks import local

    with ThreadPoolExecutor() as pool:
        servers = [pool.submit(local.prefect_server), pool.submit(local.ray_head)]
        services = [server.result() for server in servers]
    if as_json:
        show.print_json({service.name: service.url for service in services})
        return
    console = show.console()
    console.print(f"Prefect UI      {services[0].url}")
    console.print(f"Ray dashboard   {services[1].url}  (token: {services[1].environment['RAY_AUTH_TOKEN_PATH']})")


def down(as_json: options.Json = False) -> None:
    """Stops the local services, and nothing else: jobs in flight stop with the Ray head and go on at the next run."""
    from tasks import local

    stopped = local.running()
    for service in stopped:
        local.stop(service)
    if as_json:
        show.print_json({"stopped": [service.name for service in stopped]})
    else:
        show.console().print(f"stopped {', '.join(service.name for service in stopped) or 'nothing: none was running'}")
