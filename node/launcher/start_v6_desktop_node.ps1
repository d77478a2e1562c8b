<#
.SYNOPSIS
Keeps a V6 node running on this desktop: joins the mesh of a server with a token, starts the node, looks after it.
.DESCRIPTION
Running this means that you let the members of the mesh run their jobs on this PC. ON WINDOWS THERE IS NO SANDBOX YET: BY
DEFAULT ONLY YOUR OWN JOBS RUN HERE. The file accept.toml in the data directory narrows whose jobs and which.
Environment: V6_BIN (the program; else beside this script, else on PATH), V6_DATA_DIR (the node's data directory).
.PARAMETER ServerUrl
A gateway or node of the mesh, such as http://192.168.1.10:8000; it is asked where the mesh is reached (GET /v1/join).
.PARAMETER Token
A ticket, as `v6 invite --role worker` printed it. It never leaves this PC in clear.
.PARAMETER WorkerName
Name of this PC in the mesh; without it the computer's.
.PARAMETER Labels
Labels that jobs can ask for, separated by commas.
.PARAMETER PollSec
Seconds between two looks at the node.
.EXAMPLE
.\start_v6_desktop_node.ps1 -ServerUrl http://SERVER:8000 -Token TOKEN -WorkerName desktop-01 -Labels desktop,autonomous,builder -PollSec 5
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^https?://')][string]$ServerUrl,
    [Parameter(Mandatory = $true)][ValidateNotNullOrEmpty()][string]$Token,
    [string]$WorkerName = '',
    [string[]]$Labels = @(),
    [ValidateRange(1, 86400)][int]$PollSec = 5
)
Set-StrictMode -Version 3.0
$ErrorActionPreference = 'Stop'

$onWindows = ($PSVersionTable.PSVersion.Major -lt 6) -or $IsWindows
$program = if ($onWindows) { 'v6.exe' } else { 'v6' }
$logFile = $null

# A log above 5 MB becomes FILE.1, and FILE.1 becomes FILE.2.
function Limit-Log([string]$Path) {
    if (-not (Test-Path -LiteralPath $Path)) { return }
    if ((Get-Item -LiteralPath $Path).Length -le 5000000) { return }
    try {
        if (Test-Path -LiteralPath "$Path.1") { Move-Item -Force -LiteralPath "$Path.1" -Destination "$Path.2" }
        Copy-Item -Force -LiteralPath $Path -Destination "$Path.1"
        Clear-Content -LiteralPath $Path
    } catch {
        # The node writes to its log meanwhile: the next look tries again.
        Write-Verbose "the log could not be rotated: $_"
    }
}

function Write-Line([string]$Text) {
    $line = '{0} {1}' -f (Get-Date -Format 'yyyy-MM-dd HH:mm:ss'), $Text
    Write-Output $line
    if ($script:logFile) {
        Add-Content -LiteralPath $script:logFile -Value $line -Encoding UTF8
        Limit-Log $script:logFile
    }
}

function Find-Program {
    if ($env:V6_BIN) { return $env:V6_BIN }
    $beside = Join-Path $PSScriptRoot $program
    if (Test-Path -LiteralPath $beside) { return $beside }
    $found = Get-Command $program -ErrorAction SilentlyContinue
    if ($found) { return $found.Source }
    throw "the program $program is missing: put it beside this script, on PATH, or name it by V6_BIN"
}

function Get-DataDirectory {
    if ($env:V6_DATA_DIR) { return $env:V6_DATA_DIR }
    if ($onWindows) { return (Join-Path $env:LOCALAPPDATA 'v6') }
    return (Join-Path $HOME '.local/share/v6')
}

# Addresses at which the server says that the mesh is reached; none while it is gone.
function Get-Address {
    try {
        $said = Invoke-RestMethod -Uri ($ServerUrl.TrimEnd('/') + '/v1/join') -TimeoutSec 10
        return @($said.addresses | Where-Object { $_ -match '^/[A-Za-z0-9/.:_-]+$' } | Select-Object -First 16)
    } catch {
        return @()
    }
}

function Start-Node {
    $arguments = @('up', '--data-dir', "`"$dataDir`"", '--api', '127.0.0.1:0', '--json')
    if ($WorkerName) { $arguments += @('--name', "`"$WorkerName`"") }
    if ($Labels.Count -gt 0) { $arguments += @('--labels', "`"$($Labels -join ',')`"") }
    $addresses = @(Get-Address)
    if ($addresses.Count -gt 0) {
        Write-Line "the server $ServerUrl says where the mesh is reached" | Out-Host
        foreach ($address in $addresses) { $arguments += @('--peer', $address) }
    } else {
        Write-Line "the server $ServerUrl does not answer: going on with the addresses of the ticket" | Out-Host
    }
    # The ticket stands in the node's environment, not in the list of processes.
    $env:V6_TICKET = $Token
    try {
        $started = Start-Process -FilePath $v6 -ArgumentList $arguments -PassThru -NoNewWindow `
            -RedirectStandardOutput (Join-Path $dataDir 'ready.json') -RedirectStandardError (Join-Path $dataDir 'node.log')
    } finally {
        Remove-Item Env:V6_TICKET
    }
    # Without this the exit code of a process that ended is not told.
    $null = $started.Handle
    return $started
}

function Test-Answer {
    $asked = Start-Process -FilePath $v6 -ArgumentList @('status', '--data-dir', "`"$dataDir`"", '--json') -PassThru -NoNewWindow `
        -RedirectStandardOutput (Join-Path $dataDir 'status.json') -RedirectStandardError (Join-Path $dataDir 'status.log')
    $null = $asked.Handle
    if (-not $asked.WaitForExit(10000)) {
        $asked.Kill()
        return $false
    }
    return ($asked.ExitCode -eq 0)
}

$v6 = Find-Program
$dataDir = Get-DataDirectory
$null = New-Item -ItemType Directory -Force -Path $dataDir

# One launcher per data directory; the lock goes with the process that holds it.
try {
    $lock = [System.IO.File]::Open((Join-Path $dataDir 'launcher.lock'), 'OpenOrCreate', 'ReadWrite', 'None')
} catch [System.IO.IOException] {
    Write-Output "already running: a launcher looks after $dataDir"
    exit 0
}
$script:logFile = Join-Path $dataDir 'launcher.log'

$accept = Join-Path $dataDir 'accept.toml'
if (-not (Test-Path -LiteralPath $accept)) {
    Set-Content -LiteralPath $accept -Encoding ASCII -Value @'
# Whose jobs this PC takes, and which. Without a line everything is taken but the network. Changes count within seconds.
# members  = ["ines", "laptop"]   # persons or nodes, by name or id
# commands = ["cargo", "make"]    # first word of the command
# labels   = ["ci"]               # only jobs that ask for one of these
# network  = false                # whether jobs may use the network
'@
}
if ($onWindows) {
    Write-Line "THIS PC HAS NO SANDBOX: BY DEFAULT ONLY YOUR OWN JOBS RUN HERE; $accept SAYS WHOSE AND WHICH"
} else {
    Write-Line "this PC runs jobs of the members of the mesh, in a sandbox; $accept narrows whose and which"
}

$backoff = 1
$silent = 0
$shown = $false
$node = $null
try {
    $node = Start-Node
    $began = Get-Date
    Write-Line "started the node ($v6, data in $dataDir)"
    while ($true) {
        Start-Sleep -Seconds $PollSec
        Limit-Log (Join-Path $dataDir 'node.log')
        $age = ((Get-Date) - $began).TotalSeconds
        if ($node.HasExited) {
            if ($age -gt 60) { $backoff = 1 }
            Write-Line "the node ended with code $($node.ExitCode); starting it again in $backoff s"
            Start-Sleep -Seconds $backoff
            $backoff = [Math]::Min(60, $backoff * 2)
            $silent = 0
            $shown = $false
            $node = Start-Node
            $began = Get-Date
        } elseif (Test-Answer) {
            $silent = 0
            if (-not $shown) {
                Write-Line 'the node runs'
                $shown = $true
            }
        } else {
            $silent += 1
            # A node that has just begun may still be joining.
            if ($silent -ge 6 -and $age -gt 60) {
                Write-Line 'the node does not answer: ending it'
                $node.Kill()
            }
        }
    }
} finally {
    if ($node -and -not $node.HasExited) {
        Write-Line 'stopping the node'
        $node.Kill()
        $null = $node.WaitForExit(10000)
    }
    $lock.Dispose()
}
